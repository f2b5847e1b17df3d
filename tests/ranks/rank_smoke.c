/* What test_run_ranks.c needs of an MPI program: ranks that agree, one that fails, one that hangs, one that talks. */
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int sum_of_ranks(int rank, int size) {
  int sum = rank;
  MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (rank == 0)
    printf("size %d sum %d\n", size, sum);
  return sum == size * (size - 1) / 2 ? 0 : 1;
}

/* The last rank never comes, and does not listen to SIGTERM either. */
static void hang(int rank, int size) {
  printf("pid %ld\n", (long)getpid());
  fflush(stdout);
  if (rank == size - 1) {
    signal(SIGTERM, SIG_IGN);
    for (;;)
      pause();
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

static void write_much(int rank) {
  for (int i = 0; rank == 0 && i < 20000; i++)
    printf("line %05d of what one pipe cannot hold at once\n", i);
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "sum";
  int rank, size, result = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (strcmp(what, "sum") == 0)
    result = sum_of_ranks(rank, size);
  else if (strcmp(what, "fail") == 0 && rank == size - 1)
    MPI_Abort(MPI_COMM_WORLD, 7);
  else if (strcmp(what, "fail") == 0)
    MPI_Barrier(MPI_COMM_WORLD);
  else if (strcmp(what, "return") == 0)
    result = rank == size - 1 ? 5 : 0;
  else if (strcmp(what, "hang") == 0)
    hang(rank, size);
  else if (strcmp(what, "much") == 0)
    write_much(rank);
  else if (strcmp(what, "stderr") == 0)
    fprintf(stderr, "rank %d has \"%s\" and stdin %s\n", rank, argc > 2 ? argv[2] : "",
            getchar() == EOF ? "empty" : "full");
  else
    result = 2;
  MPI_Finalize();
  return result;
}
