/* Initial parameters from a file: a training that begins where another ended, or from published weights.
 *
 *     char note[512];
 *     TRY(parameters_load("resnet50.safetensors", net_parameters(net), net_buffers(net), dtype, note, sizeof note));
 *     if (note[0] != '\0')
 *       log_line(log, "%s", note);
 *
 * The file is safetensors or HDF5 (a checkpoint, or arrays that others wrote), told by its content.  Names are those of
 * net.h, which for residual networks are torchvision's; "module." before all names and "*.num_batches_tracked" are
 * ignored.  Every parameter and buffer of the net must be there with its shape, and nothing else may be, with one
 * exception: the head.  When it is missing or has another shape, as that of a model trained on other labels has, it
 * keeps what it holds.  Local. */
#ifndef CONR_MODEL_INITIAL_H
#define CONR_MODEL_INITIAL_H

#include "model/net.h"

/* Numbers of any type are converted to dtype.  Nothing is changed before all names and shapes are found right.
 * note  [bytes] becomes "", or a sentence for the log when the head was not taken from the file
 * ERR_FILE, ERR_FORMAT: not such a file, damaged, or of another network; the sentence names the file and the tensor. */
enum status parameters_load(const char *path, struct parameters parameters, struct parameters buffers, enum dtype dtype,
                            char *note, size_t bytes);

#endif
