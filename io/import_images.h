/* Folders of images into the dataset layout (io/README.md), and one layout of it into the other.
 *
 *     struct import_images_options options = {.source_path = "labels.csv", .images_folder = "photos",
 *                                             .output_path = "photos.h5", .fractions = {0.7, 0.15, 0.15}, .threads = 4};
 *     struct import_images_report *report;
 *     TRY(import_images(&options, &report));
 *     if (!report->stopped)
 *       import_images_print(report, stdout);
 *     import_images_report_destroy(&report);
 *
 * Columns     Found by what they hold, in any order.  Split: the one named so, else the one called "split", unless
 *             fractions are to be drawn.  Path: the one named so, else the only one that is not all numbers.  Label: the
 *             ones named so, else the only column of numbers left.  What is left over is not used, and the report says so.
 * Paths       Below images_folder; one that begins with "/" is taken as it is, and ".." may lead out of the folder: the
 *             table is the user's own.  A path may stand in one row only.
 * Images      JPEG or PNG by their first bytes, whatever their names.  Each is decoded once before anything is written;
 *             broken and missing ones end the import (IMPORT_STOP) or are left out (IMPORT_SKIP), with a list.
 * Layouts     IMPORT_ENCODED keeps the files' own bytes; IMPORT_PIXELS decodes at full size and resizes.  From pixels
 *             to encoded, images become JPEGs again: not the same pixels.
 * Stopping    OUTPUT.journal notes what is done and OUTPUT.tmp holds what is written.  After a signal, a crash or a
 *             full disk the same call goes on from there; after another change of the table or the options it starts
 *             afresh.  Both are gone after success, and after a failure that trying again cannot mend.
 *
 * The file does not depend on the number of ranks or threads.  In memory: the table, and per thread one image. */
#ifndef CONR_IO_IMPORT_IMAGES_H
#define CONR_IO_IMPORT_IMAGES_H

#include "dist/comm.h"
#include "dist/log.h"
#include "io/import.h"

enum import_layout { IMPORT_ENCODED, IMPORT_PIXELS };

enum import_error_policy { IMPORT_STOP, IMPORT_SKIP };

struct import_images_options {
  const char *source_path;   /* a CSV file with images_folder, else an HDF5 file of images */
  const char *images_folder; /* where relative paths begin; NULL: source_path is HDF5      */
  const char *output_path;
  enum import_layout layout;
  int height, width; /* IMPORT_PIXELS                                    */
  int quality;       /* 1 to 100, when pixels become JPEGs; 0 counts as 95 */
  enum import_error_policy on_error;
  /* CSV only: */
  const char *const *targets; /* [target_count] label columns; 0 = the only one there is      */
  size_t target_count;
  const char *path;    /* column of paths, NULL = the only one there is                       */
  const char *weight;  /* column of sample weights, NULL = none                               */
  const char *split;   /* column of splits, NULL = "split" if there is one and !draw_split    */
  bool draw_split;     /* by fractions and seed, or the protocol, also with a column "split"  */
  double fractions[3]; /* train, validation, test; sum 1                                      */
  uint64_t seed;
  struct protocol_options protocol; /* not PROTOCOL_NONE: rows are drawn so (import.h)       */

  bool force;        /* replace an existing output */
  int threads;       /* of this rank; 0 counts as 1 */
  struct comm *comm; /* borrowed; NULL = this process alone        */
  struct log *log;   /* borrowed: progress and lists; NULL = none  */
  /* Asked about twice a second on every rank; one that says yes stops all.  NULL = never. */
  bool (*stop_asked)(void *context);
  void *stop_context;
};

/* An image that cannot be used. */
struct import_broken {
  int64_t row; /* line of the CSV file, or row of the HDF5 file */
  char *path;
  char *reason;
};

#define IMPORT_MOST_SHOWN 20 /* broken images that are listed */
#define IMPORT_MOST_NAMES 3  /* files without a label that are named */

struct import_images_report {
  struct import_report *labels; /* output path, rows, splits, targets */
  bool is_csv;
  bool stopped; /* by stop_asked: nothing else in here counts  */
  enum import_layout layout;
  int height, width;     /* IMPORT_PIXELS            */
  int quality;           /* of new JPEGs; 0 = none were made */
  int64_t bytes;         /* of all images in the file */
  int64_t jpegs, pngs;   /* of the source; both 0 for pixels */
  int least[2], most[2]; /* height and width of the image with the fewest and the most pixels */
  int64_t broken_count;  /* images left out */
  int listed;
  struct import_broken broken[IMPORT_MOST_SHOWN]; /* [listed], in order of rows */
  int64_t unlabelled_count;                       /* images in the folder that no row names */
  int named;
  char *unlabelled[IMPORT_MOST_NAMES]; /* [named], the first by name */
  char *unused;                        /* columns "a, b" without a purpose; NULL = none */
};

/* Collective over options->comm: all ranks with equal options, threads and log apart.  Rank 0 writes the file's frame,
 * all ranks the images, so output_path must be on a file system that they share.
 * out  on rank 0 all of the report, on the others `stopped` alone.
 * ERR_ARGUMENT, ERR_FILE, ERR_FORMAT: one sentence, the same on all ranks; no file is written. */
enum status import_images(const struct import_images_options *options, struct import_images_report **out);
void import_images_report_destroy(struct import_images_report **report);

/* Counts, sizes, what was left out, and a histogram per target; plain ASCII. */
void import_images_print(const struct import_images_report *report, FILE *stream);

#endif
