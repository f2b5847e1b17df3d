/* Machine files: what conr scale --predict knows of a machine (launch/machines/, whose comments say what a field is).
 *
 *     struct machine_file machine;
 *     TRY(machine_file_read("mine.ini", &machine));
 */
#ifndef CONR_LAUNCH_MACHINE_FILE_H
#define CONR_LAUNCH_MACHINE_FILE_H

#include "dist/status.h"
#include "launch/cost_model.h"

struct machine_file {
  /* As they stand in the file. */
  double gpus_per_node;
  double inside_gbs, inside_us, between_gbs, between_us, link_efficiency;
  double matrix_tflops, matrix_efficiency;
  double rows_per_gpu, fixed_seconds, seconds_per_row, gradient_bytes, fixed_rows;
  double width, value_bytes, scalar_bytes, active_share;
  /* The same, as the model takes them. */
  struct cost_machine machine;
  struct cost_work work;
};

/* path  a file, or the name of one that comes with the program, with or without ".ini" (in the folder that CONR_MACHINES
 *       names, else beside the program)
 * Local.  Every field must be there once, known and in its range: else ERR_ARGUMENT, with file, line, and what to
 * write. */
enum status machine_file_read(const char *path, struct machine_file *out);

#endif
