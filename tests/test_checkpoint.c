/* Checkpoints: everything comes back, older ones are read, forged ones are refused before memory is asked for. */
#include "model/checkpoint.h"

#include "dist/memory.h"
#include "model/cnn.h"
#include "model/mlp.h"
#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

TestSuite(checkpoint, .init = io_files_begin, .fini = io_files_end, .timeout = 120);

enum { SIDE = 16 };

static struct net *make_cnn(uint64_t seed) {
  struct image_spec spec = {.height = SIDE, .width = SIDE, .std = {1, 1, 1}, .outputs = 2};
  struct net *net;
  OK(cnn_create(ops_host(F32), &spec, 1, &net));
  OK(net_initialise(net, seed));
  return net;
}

static struct net *make_mlp(enum dtype dtype, uint64_t seed) {
  struct mlp_spec spec = {
      .inputs = 3, .hidden_count = 2, .hidden = (int64_t[]){5, 4}, .activation = ACTIVATION_TANH, .outputs = 2};
  struct net *net;
  OK(mlp_create(ops_host(dtype), &spec, 1, &net));
  OK(net_initialise(net, seed));
  return net;
}

static const struct model_description cnn_model = {.name = "cnn",
                                                   .outputs = 2,
                                                   .hidden = "64,64",
                                                   .activation = "relu",
                                                   .precision = "f32",
                                                   .height = SIDE,
                                                   .width = SIDE,
                                                   .normalise = "imagenet"};
/* Also one whose features are distributions: what its net is does not matter to a checkpoint. */
static const struct model_description mlp_model = {.name = "mlp",
                                                   .inputs = 3,
                                                   .outputs = 2,
                                                   .hidden = "5,4",
                                                   .activation = "tanh",
                                                   .precision = "f64",
                                                   .normalise = "half",
                                                   .probabilistic = 1};
static double counts[3] = {4, 0.1, -7}, scale = 1.0 / 3;
static const struct state_array states_written[] = {{"a/counts", counts, 3}, {"scale", &scale, 1}, {"none", NULL, 0}};
static const double mean[3] = {1, 2, 3}, deviation[3] = {0.5, 1, 2};

static struct optim *make_optim(struct net *net) {
  struct optim_spec spec = {.kind = OPTIM_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
  struct optim *optim;
  OK(optim_create(net_ops(net), &spec, net_parameters(net).elements, &optim));
  return optim;
}

/* Numbers that say where they are. */
static void fill(void *data, size_t elements, enum dtype dtype, double start) {
  for (size_t i = 0; i < elements; i++)
    if (dtype == F32)
      ((float *)data)[i] = (float)(start + (double)i / 16);
    else
      ((double *)data)[i] = start + (double)i / 16;
}

/* Write a checkpoint of the net with made-up buffers and optimiser states. */
static const char *write_checkpoint(struct net *net, struct optim *optim, const struct model_description *model) {
  enum dtype dtype = net_ops(net)->dtype;
  struct optim_array states[OPTIM_MAX_ARRAYS];
  struct parameters buffers = net_buffers(net);
  int count = optim_state_arrays(optim, states);
  for (int i = 0; i < count; i++)
    fill(states[i].data, states[i].count, dtype, i + 1);
  fill(buffers.data, buffers.elements, dtype, 7);
  optim_set_steps(optim, 41);
  struct checkpoint checkpoint = {.parameters = net_parameters(net),
                                  .buffers = buffers,
                                  .optim = optim,
                                  .states = states_written,
                                  .state_count = sizeof states_written / sizeof *states_written,
                                  .progress = {.epoch = 3, .step = 41, .best_epoch = 2, .best_value = 0.1},
                                  .model = *model,
                                  .feature_names = "a\nb\nc",
                                  .target_names = "x\ny",
                                  .data_hash = 0xfedcba9876543210,
                                  .options = "lr = 0.1\n",
                                  .made_by = "a test"};
  if (strcmp(model->name, "mlp") == 0) {
    checkpoint.input_features = 3;
    checkpoint.mean = mean;
    checkpoint.std = deviation;
  }
  OK(checkpoint_write(io_file("c.h5"), &checkpoint));
  return io_file("c.h5");
}

static void same(const char *what, const void *a, const void *b, size_t elements, enum dtype dtype) {
  cr_expect(elements == 0 || memcmp(a, b, elements * dtype_size(dtype)) == 0, "the %s differ", what);
}

static void come_back(struct net *net, struct net *other, const struct model_description *model) {
  enum dtype dtype = net_ops(net)->dtype;
  struct optim *optim = make_optim(net), *other_optim = make_optim(other);
  struct optim_array states[OPTIM_MAX_ARRAYS], other_states[OPTIM_MAX_ARRAYS];
  struct opened_checkpoint opened;
  const char *path = write_checkpoint(net, optim, model);
  OK(checkpoint_open(path, &opened));
  OK(checkpoint_restore(&opened, net_parameters(other), net_buffers(other), other_optim, dtype));
  struct parameters a = net_parameters(net), b = net_parameters(other);
  same("parameters", a.data, b.data, a.elements, dtype);
  same("buffers", net_buffers(net).data, net_buffers(other).data, net_buffers(net).elements, dtype);
  optim_state_arrays(other_optim, other_states);
  for (int i = optim_state_arrays(optim, states) - 1; i >= 0; i--)
    same(states[i].name, states[i].data, other_states[i].data, states[i].count, dtype);
  cr_expect(eq(i64, optim_steps(other_optim), 41));
  cr_expect(eq(i64, opened.progress.epoch, 3));
  cr_expect(eq(dbl, opened.progress.best_value, 0.1));
  cr_expect(eq(u64, opened.data_hash, 0xfedcba9876543210));
  const struct model_description *back = &opened.model;
  const char *const texts[][2] = {{model->name, back->name},           {model->hidden, back->hidden},
                                  {model->precision, back->precision}, {model->activation, back->activation},
                                  {model->normalise, back->normalise}, {"a\nb\nc", opened.feature_names},
                                  {"x\ny", opened.target_names},       {"lr = 0.1\n", opened.options}};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    cr_expect(eq(str, (char *)texts[i][1], (char *)texts[i][0]));
  cr_expect(back->inputs == model->inputs && back->outputs == model->outputs && back->height == model->height &&
            back->width == model->width && back->probabilistic == model->probabilistic);
  bool standardised = opened.mean != NULL && opened.std != NULL;
  cr_expect(standardised == (strcmp(model->name, "mlp") == 0));
  checkpoint_close(&opened);
  optim_destroy(&optim);
  optim_destroy(&other_optim);
  net_destroy(&net);
  net_destroy(&other);
}

FILE_TEST(checkpoint, parameters_statistics_and_optimiser_of_a_convolutional_net_come_back) {
  struct net *net = make_cnn(1);
  cr_assert(net_buffers(net).count > 0, "there is nothing to test");
  come_back(net, make_cnn(2), &cnn_model);
}

FILE_TEST(checkpoint, a_perceptron_comes_back_without_statistics) {
  struct net *net = make_mlp(F64, 1);
  cr_assert(eq(int, net_buffers(net).count, 0));
  come_back(net, make_mlp(F64, 2), &mlp_model);
}

/* In any order, and some of them: the file may know more than a reader wants. */
FILE_TEST(checkpoint, states_of_the_run_come_back_by_name) {
  struct net *net = make_mlp(F64, 1);
  struct optim *optim = make_optim(net);
  struct opened_checkpoint opened;
  double counts_read[3] = {0}, scale_read = 0;
  const struct state_array wanted[] = {{"scale", &scale_read, 1}, {"a/counts", counts_read, 3}, {"none", NULL, 0}};
  OK(checkpoint_open(write_checkpoint(net, optim, &mlp_model), &opened));
  OK(checkpoint_restore_states(&opened, wanted, 3));
  same("counts", counts, counts_read, 3, F64);
  same("scales", &scale, &scale_read, 1, F64);
  scale_read = 0;
  OK(checkpoint_restore_states(&opened, wanted, 1));
  same("scales", &scale, &scale_read, 1, F64);
  checkpoint_close(&opened);
  optim_destroy(&optim);
  net_destroy(&net);
}

FILE_TEST(checkpoint, states_that_are_missing_or_of_another_length_are_refused) {
  struct net *net = make_mlp(F64, 1);
  struct optim *optim = make_optim(net);
  struct opened_checkpoint opened;
  char sentence[512];
  double room[4];
  OK(checkpoint_open(write_checkpoint(net, optim, &mlp_model), &opened));
  cr_expect(eq(int, checkpoint_restore_states(&opened, &(struct state_array){"b", room, 1}, 1), ERR_FORMAT));
  snprintf(sentence, sizeof sentence, "%s has no \"state/b\", which a run with these options has; start a new run",
           io_file("c.h5"));
  cr_expect(eq(str, (char *)status_message(), sentence));
  cr_expect(eq(int, checkpoint_restore_states(&opened, &(struct state_array){"a/counts", room, 4}, 1), ERR_FORMAT));
  snprintf(sentence, sizeof sentence,
           "\"state/a/counts\" is [3] in %s but [4] in this run; give the same options as then, or start a new run",
           io_file("c.h5"));
  cr_expect(eq(str, (char *)status_message(), sentence));
  checkpoint_close(&opened);
  optim_destroy(&optim);
  net_destroy(&net);
}

/* ---- files changed by hand ------------------------------------------------------------------ */

static struct attribute *attribute_of(struct array_file *file, const char *name) {
  for (size_t i = 0; i < file->attribute_count; i++)
    if (strcmp(file->attributes[i].name, name) == 0)
      return &file->attributes[i];
  cr_fatal("no attribute %s", name);
}

static struct array_file *sample(const struct model_description *model) {
  struct array_file *file;
  bool mlp = strcmp(model->name, "mlp") == 0;
  struct net *net = mlp ? make_mlp(F64, 1) : make_cnn(1);
  struct optim *optim = make_optim(net);
  OK(array_file_read(write_checkpoint(net, optim, model), true, &file));
  optim_destroy(&optim);
  net_destroy(&net);
  return file;
}

/* Write it with a checksum that fits, and free it. */
static const char *store(struct array_file *file) {
  OK(array_file_write(io_file("c.h5"), file->arrays, file->array_count, file->attributes, file->attribute_count));
  array_file_destroy(&file);
  return io_file("c.h5");
}

static void refused(const char *path, const char *sentence) {
  struct opened_checkpoint opened;
  char text[1024];
  cr_expect(eq(int, checkpoint_open(path, &opened), ERR_FORMAT));
  snprintf(text, sizeof text, sentence, path);
  cr_expect(eq(str, (char *)status_message(), text));
}

static void forget_attribute(struct array_file *file, const char *name) {
  struct attribute *one = attribute_of(file, name), *last = &file->attributes[file->attribute_count - 1];
  struct attribute kept = *one;
  *one = *last;
  *last = kept;
  memory_free((void **)&last->text);
  memory_free((void **)&last->name);
  file->attribute_count--;
}

/* Version 2 knew no other head than one of predictions. */
FILE_TEST(checkpoint, outputs_of_one_of_version_2_are_predictions) {
  struct array_file *file = sample(&cnn_model);
  attribute_of(file, "conr_version")->integer = 2;
  forget_attribute(file, "model_targets");
  forget_attribute(file, "model_head");
  forget_attribute(file, "model_probabilistic");
  struct opened_checkpoint opened;
  OK(checkpoint_open(store(file), &opened));
  cr_expect(eq(str, (char *)opened.model.head, "values"));
  cr_expect(eq(i64, opened.model.targets, opened.model.outputs));
  cr_expect(eq(i64, opened.model.height, cnn_model.height));
  checkpoint_close(&opened);
}

/* Version 1 had neither buffers nor these attributes. */
FILE_TEST(checkpoint, one_of_version_1_is_read_as_a_perceptron) {
  static const char *const newer[] = {"model_height",  "model_width", "model_normalise",
                                      "model_targets", "model_head",  "model_probabilistic"};
  struct array_file *file = sample(&mlp_model);
  attribute_of(file, "conr_version")->integer = 1;
  for (size_t i = 0; i < sizeof newer / sizeof *newer; i++)
    forget_attribute(file, newer[i]);
  struct opened_checkpoint opened;
  struct net *net = make_mlp(F64, 1), *other = make_mlp(F64, 2);
  OK(checkpoint_open(store(file), &opened));
  OK(checkpoint_restore(&opened, net_parameters(other), net_buffers(other), NULL, F64));
  same("parameters", net_parameters(net).data, net_parameters(other).data, net_parameters(net).elements, F64);
  cr_expect(eq(str, (char *)opened.model.name, "mlp"));
  cr_expect(eq(str, (char *)opened.model.normalise, "none"));
  cr_expect(opened.model.height == 0 && opened.model.width == 0 && opened.model.inputs == 3);
  cr_expect(eq(i64, opened.model.probabilistic, 0));
  checkpoint_close(&opened);
  net_destroy(&net);
  net_destroy(&other);
}

FILE_TEST(checkpoint, one_without_a_running_statistic_is_refused) {
  struct array_file *file = sample(&cnn_model);
  struct array *array = (struct array *)array_file_find(file, "buffers/bn1.running_var");
  cr_assert(array != NULL);
  strcpy(array->name, "buffers/bn1.running_car");
  struct opened_checkpoint opened;
  struct net *net = make_cnn(2);
  OK(checkpoint_open(store(file), &opened));
  cr_expect(eq(int, checkpoint_restore(&opened, net_parameters(net), net_buffers(net), NULL, net_ops(net)->dtype),
               ERR_FORMAT));
  char sentence[512];
  snprintf(sentence, sizeof sentence, "%s has no \"buffers/bn1.running_var\"; the model has it with shape [32]",
           io_file("c.h5"));
  cr_expect(eq(str, (char *)status_message(), sentence));
  checkpoint_close(&opened);
  net_destroy(&net);
}

static const struct forgery {
  bool images;
  const char *attribute, *text;
  int64_t number;
  const char *sentence;
} forgeries[] = {
    {true, "conr_version", NULL, 4, "%s is a checkpoint of format version 4; this program reads versions 1 to 3"},
    {true, "conr_version", NULL, 0, "%s is a checkpoint of format version 0; this program reads versions 1 to 3"},
    {true, "model_probabilistic", NULL, 2, "%s says the model is probabilistic 2 times; use another checkpoint"},
    {true, "model", "gan", 0, "%s says its model is \"gan\", which this program does not have"},
    {true, "precision", "f16", 0, "%s says its precision is \"f16\", which this program does not have"},
    {true, "model_normalise", "x", 0, "%s says its normalisation is \"x\", which this program does not have"},
    {true, "model_inputs", NULL, -1, "%s says the model has -1 inputs; use another checkpoint"},
    {false, "model_inputs", NULL, 0, "%s says the model has 0 inputs; use another checkpoint"},
    {false, "model_inputs", NULL, INT64_MAX,
     "%s says the model has 9223372036854775807 inputs; use another checkpoint"},
    {true, "model_outputs", NULL, 0, "%s says the model has 0 outputs; use another checkpoint"},
    {true, "model_targets", NULL, 0,
     "%s says the model has 2 outputs for labels of 0 components; use another checkpoint"},
    {true, "model_targets", NULL, 3,
     "%s says the model has 2 outputs for labels of 3 components; use another checkpoint"},
    {true, "model_head", "tail", 0, "%s says its head is \"tail\", which this program does not have"},
    {true, "model_height", NULL, 0, "%s says the model cnn sees images of 0 x 16; use another checkpoint"},
    {true, "model_width", NULL, 65537, "%s says the model cnn sees images of 16 x 65537; use another checkpoint"},
    {false, "model_width", NULL, 1, "%s says the model mlp sees images of 0 x 1; use another checkpoint"},
    {true, "model_outputs", NULL, 100000000,
     "%s describes a model of 0 inputs, hidden layers \"64,64\" and 100000000 outputs, but holds 389410 parameters; "
     "use "
     "another checkpoint"},
    {false, "model_inputs", NULL, 1000000,
     "%s describes a model of 1000000 inputs, hidden layers \"5,4\" and 2 outputs, but holds 54 parameters; use "
     "another "
     "checkpoint"},
    {false, "model_hidden", "1048576,1048576", 0,
     "%s describes a model of 3 inputs, hidden layers \"1048576,1048576\" and 2 outputs, but holds 54 parameters; use "
     "another checkpoint"},
    {false, "model_hidden", "5,x", 0,
     "%s describes a model of 3 inputs, hidden layers \"5,x\" and 2 outputs, but holds 54 parameters; use another "
     "checkpoint"},
    {false, "model_hidden", "-5", 0,
     "%s describes a model of 3 inputs, hidden layers \"-5\" and 2 outputs, but holds 54 parameters; use another "
     "checkpoint"}};

FILE_TEST(checkpoint, a_description_that_makes_no_sense_is_refused) {
  for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
    const struct forgery *forgery = &forgeries[i];
    struct array_file *file = sample(forgery->images ? &cnn_model : &mlp_model);
    struct attribute *attribute = attribute_of(file, forgery->attribute);
    if (forgery->text != NULL) {
      memory_free((void **)&attribute->text);
      OK(memory_alloc(strlen(forgery->text) + 1, (void **)&attribute->text));
      strcpy((char *)attribute->text, forgery->text);
    } else {
      attribute->integer = forgery->number;
    }
    refused(store(file), forgery->sentence);
  }
}
