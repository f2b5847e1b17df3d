/* Pictures of how alike features are. */
#include "launch/report_pictures.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

/* The map of one run and component, and the same by distance of labels. */
struct alike {
  double *values, *pairs, *by_distance, *pairs_at, *edges, *distance;
};

static enum status alike_create(const struct similarity *similarity, struct alike *alike) {
  size_t bins = (size_t)similarity->axis.count;
  double **const arrays[] = {&alike->values,   &alike->pairs, &alike->by_distance,
                             &alike->pairs_at, &alike->edges, &alike->distance};
  const size_t sizes[] = {bins * bins, bins * bins, bins, bins, bins + 1, bins};
  *alike = (struct alike){0};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    TRY(memory_alloc(sizes[i] * sizeof(double), (void **)arrays[i]));
  for (int b = 0; b < similarity->axis.count; b++) {
    label_axis_ends(&similarity->axis, b, &alike->edges[b], &alike->edges[b + 1]);
    alike->distance[b] = b * similarity->axis.width;
  }
  similarity_map(similarity, alike->values, alike->pairs);
  similarity_by_distance(similarity, alike->by_distance, alike->pairs_at);
  return STATUS_OK;
}

static void alike_destroy(struct alike *alike) {
  double **const arrays[] = {&alike->values,   &alike->pairs, &alike->by_distance,
                             &alike->pairs_at, &alike->edges, &alike->distance};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    memory_free((void **)arrays[i]);
}

/* Calls `each` with the map of every run and component. */
typedef enum status (*alike_each)(void *context, const struct report *report, int r, int component,
                                  const struct alike *alike);

static enum status for_each_alike(const struct report *report, alike_each each, void *context) {
  for (int r = 0; r < report->runs; r++)
    for (int k = 0; k < report->run[r].components; k++) {
      struct alike alike;
      enum status status = alike_create(report->run[r].similarity[k], &alike);
      if (status == STATUS_OK)
        status = each(context, report, r, k, &alike);
      alike_destroy(&alike);
      TRY(status);
    }
  return STATUS_OK;
}

/* Maps side by side have one scale: from the least similar pair of bins to the most similar. */
struct maps {
  struct plot *plot;
  double low, high;
};

static enum status widen_scale(void *context, const struct report *report, int r, int component,
                               const struct alike *alike) {
  struct maps *maps = context;
  int bins = report->run[r].similarity[component]->axis.count;
  for (int i = 0; i < bins * bins; i++)
    if (!isnan(alike->values[i])) {
      maps->low = fmin(maps->low, alike->values[i]);
      maps->high = fmax(maps->high, alike->values[i]);
    }
  return STATUS_OK;
}

static enum status draw_map(void *context, const struct report *report, int r, int component,
                            const struct alike *alike) {
  struct maps *maps = context;
  const struct report_run *run = &report->run[r];
  const struct similarity *similarity = run->similarity[component];
  int bins = similarity->axis.count;
  bool scaled = maps->low < maps->high;
  char title[512];
  struct plot_axis axis = {.title = run->target[component], .low = alike->edges[0], .high = alike->edges[bins]};
  TRY(plot_panel(maps->plot,
                 &(struct plot_panel){.title = picture_title(run, component, report->runs > 1, title, sizeof title),
                                      .x = axis,
                                      .y = axis}));
  return plot_map(maps->plot, &(struct plot_map){.columns = bins,
                                                 .rows = bins,
                                                 .x_edges = alike->edges,
                                                 .y_edges = alike->edges,
                                                 .values = alike->values,
                                                 .title = "mean cosine similarity",
                                                 .low = scaled ? maps->low : 0,
                                                 .high = scaled ? maps->high : 0});
}

static enum status picture_similarity(struct report *report) {
  struct maps maps = {.low = INFINITY, .high = -INFINITY};
  char caption[1024];
  enum status status;
  struct plot_layout layout = picture_layout(picture_panels(report));
  layout.width = layout.height = layout.width > 400 ? 360 : layout.width;
  TRY_GOTO(plot_create(&layout, &maps.plot), out);
  TRY_GOTO(for_each_alike(report, widen_scale, &maps), out);
  TRY_GOTO(for_each_alike(report, draw_map, &maps), out);
  snprintf(caption, sizeof caption,
           "Mean cosine similarity of the features of all pairs of samples of the %s split whose labels fall into two "
           "bins (of width %g here). Features that follow the labels are alike along the diagonal and less so away "
           "from it. All maps have one colour scale; white: no pairs.",
           report->config->part, report_first_shown(report)->similarity[0]->axis.width);
  status = picture_finish(report, maps.plot, "similarity", "Feature similarity by label", caption);
out:
  plot_destroy(&maps.plot);
  return status;
}

struct distances {
  struct plot *plot;
  int component;
};

static enum status draw_distances(void *context, const struct report *report, int r, int component,
                                  const struct alike *alike) {
  struct distances *distances = context;
  if (component != distances->component)
    return STATUS_OK;
  return plot_series(distances->plot, &(struct plot_series){.style = PLOT_LINES_POINTS,
                                                            .title = picture_key(report, r),
                                                            .colour = r,
                                                            .count = report->run[r].similarity[component]->axis.count,
                                                            .x = alike->distance,
                                                            .y = alike->by_distance});
}

static enum status picture_distances(struct report *report) {
  const struct report_run *run = report_first_shown(report);
  struct distances distances = {0};
  char caption[1024], x[512], title[512];
  enum status status;
  struct plot_layout layout = picture_layout(run->components);
  TRY_GOTO(plot_create(&layout, &distances.plot), out);
  for (; distances.component < run->components; distances.component++) {
    picture_axis("distance of labels", run->target[distances.component], x, sizeof x);
    TRY_GOTO(plot_panel(distances.plot, &(struct plot_panel){.title = picture_title(run, distances.component, false,
                                                                                    title, sizeof title),
                                                             .x = {.title = x, .low = 0, .high = NAN},
                                                             .y = {.title = "mean cosine similarity"}}),
             out);
    TRY_GOTO(for_each_alike(report, draw_distances, &distances), out);
  }
  snprintf(caption, sizeof caption,
           "The same pairs by the distance of their labels, in steps of one bin (at 0: pairs within a bin).");
  status = picture_finish(report, distances.plot, "similarity_distance", "Feature similarity by distance of labels",
                          caption);
out:
  plot_destroy(&distances.plot);
  return status;
}

static enum status put_map(void *context, const struct report *report, int r, int component,
                           const struct alike *alike) {
  const struct numbers *numbers = context;
  int bins = report->run[r].similarity[component]->axis.count;
  for (int a = 0; a < bins; a++)
    for (int b = a; b < bins; b++) {
      if (alike->pairs[a * bins + b] == 0)
        continue;
      numbers_text(numbers, report->run[r].name);
      numbers_text(numbers, report->run[r].target[component]);
      NUMBERS(numbers, alike->edges[a], alike->edges[a + 1], alike->edges[b], alike->edges[b + 1],
              alike->pairs[a * bins + b], alike->values[a * bins + b]);
    }
  return STATUS_OK;
}

static enum status put_distances(void *context, const struct report *report, int r, int component,
                                 const struct alike *alike) {
  const struct numbers *numbers = context;
  for (int b = 0; b < report->run[r].similarity[component]->axis.count; b++) {
    numbers_text(numbers, report->run[r].name);
    numbers_text(numbers, report->run[r].target[component]);
    NUMBERS(numbers, alike->distance[b], alike->pairs_at[b], alike->by_distance[b]);
  }
  return STATUS_OK;
}

static enum status write_similarity(const struct report *report) {
  struct numbers numbers;
  TRY(numbers_open(report, "similarity.csv", "run,component,low_i,high_i,low_j,high_j,pairs,similarity", &numbers));
  enum status status = for_each_alike(report, put_map, &numbers);
  enum status closed = numbers_close(&numbers);
  TRY(status);
  TRY(closed);
  TRY(numbers_open(report, "similarity_distance.csv", "run,component,distance,pairs,similarity", &numbers));
  status = for_each_alike(report, put_distances, &numbers);
  closed = numbers_close(&numbers);
  return status != STATUS_OK ? status : closed;
}

enum status pictures_of_similarity(struct report *report) {
  TRY(write_similarity(report));
  if (report_first_shown(report) == NULL)
    return STATUS_OK;
  TRY(picture_similarity(report));
  return picture_distances(report);
}
