/* conr export: the file holds the checkpoint's numbers, PyTorch takes it, and training begins from it. */
#include "io_files.h"
#include "support_cli.h"

#include "dist/memory.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/resnet.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

TestSuite(cli_export, .init = cli_begin, .fini = cli_end, .timeout = 240);

static const char *trained(const char *more) {
  const char *run = io_file("run");
  cli_accepted(0, cli_text("train %s -o %s --epochs 3 --hidden 8,5 --activation tanh --quiet %s", cli_data("t.h5", 60),
                           run, more));
  return run;
}

/* Every tensor of the file is that parameter of the checkpoint, in its own type, and none is missing. */
static void same_as_checkpoint(const char *path, const char *checkpoint) {
  struct safetensors *file;
  struct array_file *wanted;
  size_t parameters = 0;
  OK(safetensors_open(path, &file));
  OK(array_file_read(checkpoint, true, &wanted));
  for (size_t i = 0; i < wanted->array_count; i++) {
    const struct array *one = &wanted->arrays[i];
    struct array found;
    if (!checkpoint_names_parameter(one->name))
      continue;
    parameters++;
    const struct safetensors_tensor *tensor = safetensors_find(file, one->name);
    cr_assert(tensor != NULL, "%s is not there", one->name);
    OK(safetensors_read(file, tensor, &found));
    cr_assert(found.type == one->type && array_bytes(&found) == array_bytes(one), "%s", one->name);
    cr_expect(memcmp(found.data, one->data, array_bytes(one)) == 0, "%s differs", one->name);
    array_destroy(&found);
  }
  cr_expect(eq(sz, file->count, parameters));
  array_file_destroy(&wanted);
  safetensors_close(&file);
}

Test(cli_export, the_best_or_the_last_checkpoint_is_written) {
  const char *run = trained("--lr 0.5"), *best = io_file("best.safetensors"), *last = io_file("last.safetensors");
  cli_accepted(0, cli_text("export %s -o %s", run, best));
  same_as_checkpoint(best, cli_text("%s/checkpoint-best.h5", run));
  cli_accepted(0, cli_text("export %s -o %s --checkpoint last", run, last));
  same_as_checkpoint(last, cli_last(run));
  size_t bytes;
  char *one = io_read(best, &bytes), *other = io_read(last, NULL);
  cr_assert(memcmp(one, other, bytes) != 0, "the best is the last: nothing was tested");
  free(one);
  free(other);
  cli_accepted(0, cli_text("export %s -o %s --force", cli_last(run), best));
  same_as_checkpoint(best, cli_last(run));
}

Test(cli_export, double_precision_stays_double_precision) {
  const char *run = trained("--precision f64"), *path = io_file("x.safetensors");
  cli_accepted(0, cli_text("export %s -o %s", run, path));
  same_as_checkpoint(path, cli_text("%s/checkpoint-best.h5", run));
}

Test(cli_export, the_report_is_one_line_and_quiet_leaves_it_out) {
  const char *run = trained(""), *path = io_file("x.safetensors");
  char *output = cli_output(0, cli_text("export %s -o %s --checkpoint last", run, path));
  cr_expect(eq(str, output, (char *)cli_text("%s: mlp after 3 epochs, 6 tensors, 107 numbers\n", path)));
  free(output);
  output = cli_output(0, cli_text("export %s -o %s --quiet --force", run, path));
  cr_expect(eq(str, output, ""));
  free(output);
}

Test(cli_export, training_begins_from_an_exported_file_as_from_the_checkpoint) {
  const char *run = trained(""), *path = io_file("x.safetensors"), *a = io_file("a"), *b = io_file("b");
  const char *more = "--epochs 2 --hidden 8,5 --activation tanh --quiet";
  cli_accepted(0, cli_text("export %s -o %s --checkpoint last", run, path));
  cli_accepted(0, cli_text("train %s -o %s --init %s %s", io_file("t.h5"), a, path, more));
  cli_accepted(3, cli_text("train %s -o %s --init %s %s", io_file("t.h5"), b, cli_last(run), more));
  cli_same_arrays(cli_last(a), cli_last(b), 1e-4);
  cli_accepted(0, cli_text("train %s -o %s --init %s %s --force", io_file("t.h5"), b, cli_last(run), more));
  cli_same_runs(a, b);
}

Test(cli_export, what_cannot_be_written_is_refused) {
  const char *run = trained(""), *path = io_file("x.safetensors"), *copy = io_file("copy.safetensors");
  size_t bytes;
  cli_refused(0, 2, "conr export wants a file to write: give -o FILE.safetensors", cli_text("export %s", run));
  cli_refused(0, 2, cli_text("cannot tell how to write %s: its name must end in .safetensors", io_file("x.pt")),
              cli_text("export %s -o %s", run, io_file("x.pt")));
  io_write_text(path, "mine");
  cli_refused(0, 2, cli_text("%s exists already; use --force to replace it", path),
              cli_text("export %s -o %s", run, path));
  char *checkpoint = io_read(cli_last(run), &bytes);
  io_write(copy, checkpoint, bytes);
  free(checkpoint);
  cli_refused(0, 2, cli_text("%s is the checkpoint itself; choose another name", copy),
              cli_text("export %s -o %s --force", copy, copy));
  cli_refused(0, 1, cli_text("cannot open %s: No such file or directory", io_file("none")),
              cli_text("export %s -o %s --force", io_file("none"), path));
  cli_refused(0, 1,
              cli_text("%s has no checksum, so it was not written by conr, or it is damaged; use another file",
                       io_file("t.h5")),
              cli_text("export %s -o %s --force", io_file("t.h5"), path));
  char *kept = io_read(path, NULL);
  cr_expect(eq(str, kept, "mine"));
  free(kept);
}

/* ---- PyTorch -------------------------------------------------------------------------------- */

/* The parameters and the metadata are all it takes to predict what conr predict does. */
Test(cli_export, pytorch_predicts_what_conr_predicts) {
  const char *run = trained("");
  cli_accepted(0, cli_text("export %s -o %s", run, io_file("x.safetensors")));
  cli_accepted(0, cli_text("predict %s %s -o %s --part train --quiet", run, io_file("t.h5"), io_file("p.csv")));
  io_python_with("torch, safetensors, h5py, numpy", 200,
                 "import collections, csv, json\n"
                 "from safetensors import safe_open\n"
                 "from safetensors.torch import load_file\n"
                 "path = sys.argv[1] + '/x.safetensors'\n"
                 "about = safe_open(path, 'pt').metadata()\n"
                 "assert about['format'] == 'pt' and about['model'] == 'mlp' and about['target_names'] == 'y', about\n"
                 "assert about['activation'] == 'tanh', about\n"
                 "widths = [int(about['inputs']), *map(int, about['hidden'].split(',')), int(about['outputs'])]\n"
                 "layers = collections.OrderedDict()\n"
                 "for i in range(len(widths) - 1):\n"
                 "  layers[f'layer{i}'] = torch.nn.Linear(widths[i], widths[i + 1])\n"
                 "  if i + 2 < len(widths): layers[f'tanh{i}'] = torch.nn.Tanh()\n"
                 "model = torch.nn.Sequential(layers)\n"
                 "model.load_state_dict(load_file(path), strict=True)\n"
                 "mean, std = (torch.tensor(json.loads(about['standardise_' + x])) for x in ('mean', 'std'))\n"
                 "x = torch.from_numpy(h5py.File(sys.argv[1] + '/t.h5')['inputs'][:]).double()\n"
                 "with torch.no_grad(): y = model(((x - mean) / std).float())\n"
                 "rows = list(csv.DictReader(open(sys.argv[1] + '/p.csv')))\n"
                 "assert len(rows) == 36, len(rows)\n"
                 "for row in rows:\n"
                 "  ours, theirs = float(row['prediction_y']), float(y[int(row['row']), 0])\n"
                 "  assert abs(ours - theirs) < 1e-5 * (1 + abs(ours)), (row, theirs)\n",
                 io_file(""));
}

/* A checkpoint of a residual network that has learnt nothing. */
static void write_resnet(const char *path) {
  const struct ops *ops = ops_host(F32);
  struct image_spec spec = {.height = 64, .width = 64, .std = {1, 1, 1}, .outputs = 3};
  struct optim_spec rule = {.kind = OPTIM_SGD};
  struct net *net;
  struct optim *optim;
  OK(resnet_create(ops, 18, &spec, 1, &net));
  OK(net_initialise(net, 1));
  OK(optim_create(ops, &rule, net_parameters(net).elements, &optim));
  struct parameters buffers = net_buffers(net);
  for (size_t i = 0; i < buffers.elements; i++)
    ((float *)buffers.data)[i] = (float)i / 8;
  struct checkpoint checkpoint = {.parameters = net_parameters(net),
                                  .buffers = buffers,
                                  .optim = optim,
                                  .model = {.name = "resnet18",
                                            .outputs = 3,
                                            .hidden = "",
                                            .activation = "relu",
                                            .precision = "f32",
                                            .height = 64,
                                            .width = 64,
                                            .normalise = "imagenet"},
                                  .feature_names = "",
                                  .target_names = "x\ny\nz",
                                  .options = "",
                                  .made_by = "a test"};
  OK(checkpoint_write(path, &checkpoint));
  optim_destroy(&optim);
  net_destroy(&net);
}

Test(cli_export, torchvision_takes_a_residual_network) {
  write_resnet(io_file("r.h5"));
  cli_accepted(0, cli_text("export %s -o %s", io_file("r.h5"), io_file("x.safetensors")));
  io_python_with("torch, torchvision, safetensors, h5py", 200,
                 "from safetensors import safe_open\n"
                 "from safetensors.torch import load_file\n"
                 "path = sys.argv[1] + '/x.safetensors'\n"
                 "about = safe_open(path, 'pt').metadata()\n"
                 "assert (about['model'], about['height'], about['width'], about['normalise']) == \\\n"
                 "  ('resnet18', '64', '64', 'imagenet'), about\n"
                 "model = torchvision.models.resnet18(num_classes=3)\n"
                 "model.load_state_dict(load_file(path), strict=True)\n"
                 "state, stored = model.state_dict(), h5py.File(sys.argv[1] + '/r.h5')\n"
                 "for name, value in state.items():\n"
                 "  if name.endswith('num_batches_tracked'): continue\n"
                 "  wanted = stored[name if name in stored else 'buffers/' + name][:]\n"
                 "  assert torch.equal(value, torch.from_numpy(wanted)), name\n",
                 io_file(""));
}
