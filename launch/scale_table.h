/* The tables of a scaling study: measured seconds and efficiency against those of a model fitted to them, as text, CSV,
 * JSON and pictures.
 *
 *     TRY(scale_study_create(points, count, &options, &study));         fits the model
 *     TRY(scale_study_csv(study, "study/scale.csv"));
 *     TRY(scale_study_json(study, &object));
 *     scale_study_print(study, stdout);
 *     TRY(scale_study_draw(study, "study", note, sizeof note));
 *     scale_study_destroy(&study);
 *
 * Efficiency of P ranks, with P0 the fewest that were measured of the same series: weak, T(P0) / T(P), with equal batches
 * of a rank; strong, P0 T(P0) / (P T(P)), with equal batches of all ranks.  Local. */
#ifndef CONR_LAUNCH_SCALE_TABLE_H
#define CONR_LAUNCH_SCALE_TABLE_H

#include "launch/cost_model.h"
#include "launch/scale_point.h"

struct scale_lists {
  const int64_t *ranks, *batches; /* rising */
  int rank_count, batch_count;
  bool weak, strong;
};

/* The batch of all ranks. */
int64_t scale_batch(bool weak, int64_t batch, int64_t ranks);

/* What the model is fitted to, of a point. */
struct cost_sample scale_sample(const struct scale_point *point);

struct scale_study;

/* points  [count], borrowed: must outlive the study; each of the lists' is among them */
enum status scale_study_create(const struct scale_point *points, int count, const struct scale_lists *lists,
                               struct scale_study **out);
void scale_study_destroy(struct scale_study **study);

void scale_study_print(const struct scale_study *study, FILE *out);
enum status scale_study_csv(const struct scale_study *study, const char *path);
enum status scale_study_json(const struct scale_study *study, json_t **out);

/* FOLDER/efficiency and FOLDER/time-split, as .gp, .svg and .png.  note: why there are no pictures, "" when there are. */
enum status scale_study_draw(const struct scale_study *study, const char *folder, char *note, size_t bytes);

#endif
