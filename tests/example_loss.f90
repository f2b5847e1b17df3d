! How a Fortran program uses libconr: the same numbers as example_loss.c, on any number of ranks.
!
!     mpifort example_loss.f90 $(pkg-config --libs conr) && mpirun -n 3 ./a.out
!
! Arrays are row-major in conr.h, so a row of features is a column here: features(feature, row).
module conr
  use iso_c_binding
  implicit none
  integer(c_int), parameter :: conr_f32 = 0, conr_f64 = 1

  type, bind(c) :: conr_options
    integer(c_int) :: variant, aggregate, distance, path
    real(c_double) :: w, t, e
    integer(c_int) :: outer_weights
    integer(c_int64_t) :: memory_rows
    real(c_double) :: constant_rows
  end type

  type, bind(c) :: conr_batch
    integer(c_int64_t) :: rows
    type(c_ptr) :: features, labels, predictions
    type(c_ptr) :: weights = c_null_ptr, rows_of_rank = c_null_ptr
    integer(c_int) :: views = 1
  end type

  type, bind(c) :: conr_result
    real(c_double) :: loss
    integer(c_int64_t) :: rows, active_anchors, positive_pairs, negative_pairs, zero_rows
    integer(c_int) :: path
    real(c_double) :: computed_share, gemm_flops
    integer(c_int64_t) :: bytes_received
    integer(c_size_t) :: workspace_bytes
    real(c_double) :: gather_seconds
  end type

  interface
    subroutine conr_options_default(options) bind(c)
      import
      type(conr_options), intent(out) :: options
    end subroutine
    integer(c_int) function conr_create(comm, features, targets, precision, options, loss) &
        bind(c, name="conr_create_fortran")
      import
      integer(c_int), value :: comm, features, targets, precision
      type(conr_options), intent(in) :: options
      type(c_ptr), intent(out) :: loss
    end function
    integer(c_int) function conr_loss(loss, batch, gradient, result) bind(c)
      import
      type(c_ptr), value :: loss, gradient
      type(conr_batch), intent(in) :: batch
      type(conr_result), intent(out) :: result
    end function
    subroutine conr_destroy(loss) bind(c)
      import
      type(c_ptr), intent(inout) :: loss
    end subroutine
  end interface
end module

program example_loss
  use conr
  use mpi
  implicit none
  integer, parameter :: all_rows = 24, width = 4
  real(c_double), target :: features(width, all_rows), labels(all_rows), predictions(all_rows)
  real(c_double), target :: gradient(width, all_rows)
  real(c_double) :: squares
  type(conr_options) :: options
  type(conr_batch) :: batch
  type(conr_result) :: result
  type(c_ptr) :: loss
  integer :: rank, ranks, first, rows, i, k, row, error

  call mpi_init(error)
  call mpi_comm_rank(MPI_COMM_WORLD, rank, error)
  call mpi_comm_size(MPI_COMM_WORLD, ranks, error)

  first = all_rows * rank**2 / ranks**2
  rows = all_rows * (rank + 1)**2 / ranks**2 - first
  do i = 1, rows
    row = first + i - 1
    labels(i) = 20 + 3 * mod(row, 12)
    predictions(i) = labels(i) + 4 * cos(2d0 * row)
    do k = 1, width
      features(k, i) = sin(1d0 + 0.7d0 * row * k) + 0.1d0 * mod(row, 12)
    end do
  end do

  call conr_options_default(options)
  options%w = 4
  options%t = 0.2d0
  batch%rows = rows
  batch%features = c_loc(features)
  batch%labels = c_loc(labels)
  batch%predictions = c_loc(predictions)
  if (conr_create(MPI_COMM_WORLD, width, 1, conr_f64, options, loss) /= 0) call mpi_abort(MPI_COMM_WORLD, 1, error)
  if (conr_loss(loss, batch, c_loc(gradient), result) /= 0) call mpi_abort(MPI_COMM_WORLD, 1, error)
  call conr_destroy(loss)

  squares = sum(gradient(:, 1:rows)**2)
  call mpi_allreduce(MPI_IN_PLACE, squares, 1, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, error)
  if (rank == 0) print '(a, f14.12, a, f14.12, a, i0, a, i0, a)', 'loss ', result%loss, ', gradient norm ', &
    sqrt(squares), ', ', result%active_anchors, ' of ', result%rows, ' rows are anchors'
  call mpi_finalize(error)
end program
