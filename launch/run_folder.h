/* The folder of a run: its files, their order of writing, and what is found in it again.
 *
 *     checkpoint-last.h5      after every epoch; written aside and renamed
 *     checkpoint-previous.h5  the one before it, used when the last is damaged
 *     checkpoint-damaged.h5   a last one that could not be used, set aside when the previous one was
 *     checkpoint-best.h5      lowest validation figure
 *     metrics.jsonl           one JSON object per epoch and per logged step
 *     config.used             every option, versions, seed, hosts, data hash; --config reads it again
 *
 * Rank 0 touches the files; all functions are local to it. */
#ifndef CONR_LAUNCH_RUN_FOLDER_H
#define CONR_LAUNCH_RUN_FOLDER_H

#include "model/checkpoint.h"

#include <limits.h>

enum run_file { RUN_LAST, RUN_PREVIOUS, RUN_DAMAGED, RUN_BEST, RUN_METRICS, RUN_CONFIG };

/* "folder/name"; `buffer` holds PATH_MAX bytes and is returned. */
const char *run_path(const char *folder, enum run_file file, char *buffer);

/* Could run_folder_make make it?  Nothing is changed; `parent` becomes the innermost part of it that is there. */
enum status run_folder_check(const char *folder, char parent[PATH_MAX]);

/* Make the folder, its parents too, and check that it can be written. */
enum status run_folder_make(const char *folder);

/* Is there a checkpoint in it, to go on from and not to be lost? */
bool run_folder_has_checkpoint(const char *folder);

/* Remove the files of an earlier run. */
enum status run_folder_clear(const char *folder);

/* Remove what a run that was killed had not written to its end. */
enum status run_folder_clear_unfinished(const char *folder);

/* Write the best checkpoint, if this is it; then the last one, keeping the one before it. */
enum status run_folder_save(const char *folder, const struct checkpoint *checkpoint, bool best);

/* Open the last checkpoint, or, when it is damaged or missing, the previous one: then `note` (of `bytes`) says so, and
 * the damaged one is renamed, so that it never takes the place of the good one.  When there is neither, as after a stop
 * in the middle of the first save, the best one, with a note. */
enum status run_folder_open_last(const char *folder, struct opened_checkpoint *out, char *note, size_t bytes);

/* What --checkpoint and a path mean: a run folder's best or last checkpoint, or the file itself.
 * "best" falls back on the last when a run had no validation rows. */
enum status run_checkpoint_path(const char *run_or_file, const char *which, char *path);

#endif
