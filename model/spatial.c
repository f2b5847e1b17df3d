/* The scratch memory that layers share. */
#include "model/spatial.h"

enum status workspace_reserve(struct workspace *workspace, size_t bytes) {
  if (bytes <= workspace->bytes)
    return STATUS_OK;
  workspace_free(workspace); /* first, so that old and new are never held together */
  TRY(device_alloc(workspace->device, bytes, &workspace->data));
  workspace->bytes = bytes;
  return STATUS_OK;
}

void workspace_free(struct workspace *workspace) {
  device_free(workspace->device, &workspace->data);
  workspace->bytes = 0;
}
