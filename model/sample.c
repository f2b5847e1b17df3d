/* Features that are means mu and variances var: in training mu + sqrt(var) noise, else mu.
 * The noise is drawn by sample and unit (ops.h: struct unit_draw) and kept for backward. */
#include "model/layer.h"

static enum status draw_noise(struct net *net, struct operation *sample, const struct pass *pass) {
  struct unit_draw draw = net_draw(net, pass, 0);
  return net->ops->noise(net->rows, sample->width_out, &draw, sample->mask);
}

static const void *noise_of(const struct operation *sample) {
  return sample->dropped ? sample->mask : NULL;
}

static enum status forward(struct net *net, struct operation *sample, const struct pass *pass) {
  sample->dropped = pass->training;
  if (sample->dropped)
    TRY(draw_noise(net, sample, pass));
  return net->ops->sample_forward(net->rows, sample->width_out, sample->input, noise_of(sample), sample->output);
}

static enum status backward_data(struct net *net, struct operation *sample, const void *grad_output, void *grad_input) {
  return net->ops->sample_backward(net->rows, sample->width_out, sample->input, noise_of(sample), grad_output,
                                   grad_input);
}

static const struct operation_kind sample_kind = {.name = "sample", .forward = forward, .backward_data = backward_data};

enum status net_add_sample(struct net *net) {
  const struct value *read = net_last_value(net);
  struct operation *sample;
  REQUIRE(net->head == net->operation_count && net->features > 0 && value_width(read) % 2 == 0, ERR_BUG,
          "%lld features are no means and variances for a head to begin with", (long long)value_width(read));
  TRY(net_add(net, &sample_kind, 1, 1, value_width(read) / 2, &sample));
  sample->mask_width = (size_t)sample->width_out * dtype_size(net->ops->parameter_dtype);
  net->means = sample->width_out;
  net->draws = true;
  return STATUS_OK;
}
