/* Sample weights as the options want them, from the labels of the whole training split.
 *
 *     char bins[WEIGHTING_TEXT], summary[WEIGHTING_TEXT];
 *     double *weights;
 *     TRY(weighting_create(&config, dataset, bins, &weights));
 *     loader_options.weights = weights;
 *     TRY(weighting_summary(&config, dataset, weights, summary));
 *     memory_free((void **)&weights);
 *
 * Every rank computes all of them: labels are in the memory of every host, so nothing is sent, and all get the same
 * bits.  All functions are local. */
#ifndef CONR_LAUNCH_WEIGHTING_H
#define CONR_LAUNCH_WEIGHTING_H

#include "io/dataset.h"
#include "launch/config.h"
#include "loss/label_bins.h"
#include "loss/label_window.h"

#define WEIGHTING_TEXT 160

/* Labels of the training split, [rows, K], in the order of their ids, by memory_alloc. */
enum status weighting_labels(const struct dataset *dataset, double **out);

/* The bins of --weight-bins, found from labels [n] where they are not named; and the kernel of --lds, which is not none. */
enum status weighting_bins(const struct config *config, int64_t n, const double *labels, struct label_bins *bins);
enum status weighting_window(const struct config *config, struct label_window *window);
enum label_padding weighting_padding(const struct config *config);

/* config  where labels are to be counted in bins found from the data, weight_bins becomes `bins`, the text of those
 * bins    memory for it, as long as the config lives
 * *out    [training rows, weights of a row], in the order of their ids, by memory_alloc; NULL = the file's weights, or
 *         none.  A row has a weight for each expert of --loss uvote, else one.
 * ERR_ARGUMENT: options or labels that give no weights. */
enum status weighting_create(struct config *config, const struct dataset *dataset, char bins[WEIGHTING_TEXT],
                             double **out);

/* "sample weights: sqrt-inverse, gaussian LDS; 0.4 to 9.1, median 0.8": of the training split.  weights  as they came from
 * weighting_create().  "" when all samples weigh the same because nobody asked for anything else. */
enum status weighting_summary(const struct config *config, const struct dataset *dataset, const double *weights,
                              char summary[WEIGHTING_TEXT]);

#endif
