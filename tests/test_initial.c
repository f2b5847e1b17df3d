/* Initial parameters: from either kind of file, by name; what does not fit is refused, but for the head. */
#include "model/initial.h"

#include "dist/memory.h"
#include "io/array_file.h"
#include "io/safetensors.h"
#include "model/cnn.h"
#include "model/mlp.h"
#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

TestSuite(initial, .init = io_files_begin, .fini = io_files_end, .timeout = 120);

enum { MOST_ARRAYS = 64 };

static struct net *make_cnn(enum dtype dtype, int64_t outputs, uint64_t seed) {
  struct image_spec spec = {.height = 16, .width = 16, .std = {1, 1, 1}, .outputs = outputs};
  struct net *net;
  OK(cnn_create(ops_host(dtype), &spec, 1, &net));
  OK(net_initialise(net, seed));
  return net;
}

/* What a file is to hold; the data are the net's. */
struct content {
  struct array arrays[MOST_ARRAYS];
  size_t count;
};

static void add_all(struct content *content, const char *prefix, struct parameters parameters, enum dtype dtype) {
  for (int i = 0; i < parameters.count; i++) {
    const struct parameter *one = &parameters.list[i];
    char name[ARRAY_NAME_BYTES];
    snprintf(name, sizeof name, "%s%s", prefix, one->name);
    cr_assert(lt(sz, content->count, MOST_ARRAYS));
    OK(array_borrow(name, array_type_of(dtype), one->rank, one->shape,
                    (char *)parameters.data + one->offset * dtype_size(dtype), &content->arrays[content->count++]));
  }
}

/* Parameters and running statistics that no drawn net has. */
static struct content content_of(struct net *net, const char *prefix, const char *buffer_prefix) {
  struct content content = {.count = 0};
  struct parameters buffers = net_buffers(net);
  enum dtype dtype = net_ops(net)->dtype;
  for (size_t i = 0; i < buffers.elements; i++)
    if (dtype == F32)
      ((float *)buffers.data)[i] = 2 + (float)i / 8;
    else
      ((double *)buffers.data)[i] = 2 + (double)i / 8;
  add_all(&content, prefix, net_parameters(net), dtype);
  add_all(&content, buffer_prefix, buffers, dtype);
  return content;
}

static struct array *array_of(struct content *content, const char *name) {
  for (size_t i = 0; i < content->count; i++)
    if (strcmp(content->arrays[i].name, name) == 0)
      return &content->arrays[i];
  cr_fatal("no array %s", name);
}

static void drop(struct content *content, const char *name) {
  *array_of(content, name) = content->arrays[--content->count];
}

static void add(struct content *content, const char *name) {
  static int64_t value = 3;
  OK(array_borrow(name, ARRAY_I64, 0, NULL, &value, &content->arrays[content->count++]));
}

static const char *write_safetensors(const struct content *content) {
  OK(safetensors_write(io_file("x.safetensors"), content->arrays, content->count, NULL, 0));
  return io_file("x.safetensors");
}

static enum status load(const char *path, struct net *net, char *note, size_t bytes) {
  return parameters_load(path, net_parameters(net), net_buffers(net), net_ops(net)->dtype, note, bytes);
}

/* Are elements [0, count) of the parameters, and all buffers, those of the other net? */
static bool same(struct net *a, struct net *b, size_t count) {
  size_t real = dtype_size(net_ops(a)->dtype);
  return memcmp(net_parameters(a).data, net_parameters(b).data, count * real) == 0 &&
         memcmp(net_buffers(a).data, net_buffers(b).data, net_buffers(a).elements * real) == 0;
}

/* The file is taken whole. */
static void loaded(const char *path, struct net *source) {
  struct net *net = make_cnn(F32, 1, 2);
  char note[512] = "x";
  cr_assert(not(same(net, source, 1)));
  OK(load(path, net, note, sizeof note));
  cr_expect(eq(str, note, ""));
  cr_expect(same(net, source, net_parameters(net).elements), "%s", path);
  net_destroy(&net);
}

FILE_TEST(initial, parameters_and_statistics_come_from_safetensors_and_from_hdf5) {
  struct net *source = make_cnn(F32, 1, 1);
  struct content content = content_of(source, "", "");
  loaded(write_safetensors(&content), source);
  OK(array_file_write(io_file("x.h5"), content.arrays, content.count, NULL, 0));
  loaded(io_file("x.h5"), source);
  /* As a checkpoint has them. */
  content = content_of(source, "", "buffers/");
  add(&content, "optimiser/m/conv1.weight");
  add(&content, "standardise/mean");
  OK(array_file_write(io_file("c.h5"), content.arrays, content.count, NULL, 0));
  loaded(io_file("c.h5"), source);
  net_destroy(&source);
}

FILE_TEST(initial, what_training_on_several_devices_adds_is_ignored) {
  struct net *source = make_cnn(F32, 1, 1);
  struct content content = content_of(source, "module.", "module.");
  add(&content, "module.bn1.num_batches_tracked");
  loaded(write_safetensors(&content), source);
  net_destroy(&source);
}

FILE_TEST(initial, numbers_are_converted_to_those_of_the_net) {
  struct net *source = make_cnn(F64, 1, 1), *net = make_cnn(F32, 1, 2);
  struct content content = content_of(source, "", "");
  char note[512];
  OK(load(write_safetensors(&content), net, note, sizeof note));
  const double *wanted = net_parameters(source).data;
  const float *got = net_parameters(net).data;
  for (size_t i = 0; i < net_parameters(net).elements; i++)
    cr_assert(got[i] == (float)wanted[i], "parameter %zu", i);
  net_destroy(&source);
  net_destroy(&net);
}

/* The encoder comes from the file, the head stays, and the note says why. */
static void head_stays(const char *path, struct net *source, const char *sentence) {
  struct net *net = make_cnn(F32, 1, 2), *fresh = make_cnn(F32, 1, 2);
  struct parameters own = net_parameters(net);
  size_t encoder = own.list[own.head].offset;
  char note[512], text[512];
  OK(load(path, net, note, sizeof note));
  cr_expect(same(net, source, encoder));
  cr_expect(memcmp((float *)own.data + encoder, (float *)net_parameters(fresh).data + encoder,
                   (own.elements - encoder) * sizeof(float)) == 0);
  snprintf(text, sizeof text, sentence, path);
  cr_expect(eq(str, note, text));
  net_destroy(&net);
  net_destroy(&fresh);
}

FILE_TEST(initial, the_head_of_a_model_for_other_labels_is_not_taken) {
  struct net *source = make_cnn(F32, 1000, 1);
  struct content content = content_of(source, "", "");
  head_stays(write_safetensors(&content), source,
             "fc.weight of %s has shape [1000, 256], not [1, 256]: the head starts afresh");
  drop(&content, "fc.weight");
  drop(&content, "fc.bias");
  head_stays(write_safetensors(&content), source, "%s has no fc.weight: the head starts afresh");
  net_destroy(&source);
}

/* Half a head is none. */
FILE_TEST(initial, a_head_without_bias_is_not_taken) {
  struct net *source = make_cnn(F32, 1, 1);
  struct content content = content_of(source, "", "");
  drop(&content, "fc.bias");
  head_stays(write_safetensors(&content), source, "%s has no fc.bias: the head starts afresh");
  net_destroy(&source);
}

/* Refused, and the net is as it was. */
static void refused(const char *path, const char *sentence) {
  struct net *net = make_cnn(F32, 1, 2), *fresh = make_cnn(F32, 1, 2);
  char note[512], text[512];
  snprintf(text, sizeof text, sentence, path);
  cr_expect(eq(int, load(path, net, note, sizeof note), ERR_FORMAT), "%s", text);
  cr_expect(eq(str, (char *)status_message(), text));
  cr_expect(same(net, fresh, net_parameters(net).elements), "the net was changed");
  net_destroy(&net);
  net_destroy(&fresh);
}

FILE_TEST(initial, another_network_is_refused) {
  struct net *source = make_cnn(F32, 1, 1);
  struct content content = content_of(source, "", "");
  drop(&content, "conv2.weight");
  refused(write_safetensors(&content), "%s has no \"conv2.weight\"; the model has it with shape [64, 32, 3, 3]");
  content = content_of(source, "", "");
  drop(&content, "bn3.running_var");
  refused(write_safetensors(&content), "%s has no \"bn3.running_var\"; the model has it with shape [128]");
  content = content_of(source, "", "");
  array_of(&content, "bn2.weight")->shape[0] = 32;
  refused(write_safetensors(&content),
          "\"bn2.weight\" is [32] in %s but [64] in the model; give the same --model and --hidden as then");
  content = content_of(source, "", "");
  add(&content, "conv9.weight");
  refused(write_safetensors(&content), "%s has \"conv9.weight\", which the model does not have; give the same --model, "
                                       "--hidden and --probabilistic as then");
  add(&content, "conv8.bias");
  refused(write_safetensors(&content), "%s has \"conv8.bias\" and 1 more that the model does not have; give the same "
                                       "--model, --hidden and --probabilistic as then");
  content = content_of(source, "module.", "");
  refused(write_safetensors(&content), "%s has no \"conv1.weight\"; the model has it with shape [32, 3, 3, 3]");
  net_destroy(&source);
}

FILE_TEST(initial, what_is_no_such_file_is_refused) {
  io_write(io_file("resnet.pth"), "PK\3\4 and so on", 14);
  refused(io_file("resnet.pth"), "%s is a pickle of PyTorch, which runs code when it is read; convert it with "
                                 "safetensors.torch.save_file(torch.load(...), \"FILE.safetensors\")");
  io_write(io_file("x.safetensors"), "12345678{", 9);
  refused(io_file("x.safetensors"), "%s has 9 bytes, which is too short for a safetensors file");
}

/* A linear model is all head: there is nothing else that could be loaded. */
FILE_TEST(initial, a_linear_model_must_fit_whole) {
  struct net *source, *net;
  char note[512], text[512];
  struct mlp_spec spec = {.inputs = 3, .outputs = 1};
  OK(mlp_create(ops_host(F64), &spec, 1, &source));
  OK(net_initialise(source, 1));
  spec.outputs = 2;
  OK(mlp_create(ops_host(F64), &spec, 1, &net));
  struct content content = content_of(source, "", "");
  const char *path = write_safetensors(&content);
  cr_expect(eq(int, load(path, net, note, sizeof note), ERR_FORMAT));
  snprintf(text, sizeof text,
           "\"layer0.weight\" is [1, 3] in %s but [2, 3] in the model; give the same --model and --hidden as then",
           path);
  cr_expect(eq(str, (char *)status_message(), text));
  net_destroy(&source);
  net_destroy(&net);
}
