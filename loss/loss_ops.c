/* The losses of a device's backend. */
#include "loss/loss_ops.h"

enum status loss_ops_open(struct device *device, const struct loss_ops **out) {
  void *open;
  *out = NULL;
  TRY(device_symbol(device, LOSS_OPS_OPEN_SYMBOL, &open));
  return ((loss_ops_open_function *)open)(device, out);
}
