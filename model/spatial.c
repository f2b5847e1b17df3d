/* The scratch memory that layers share. */
#include "model/spatial.h"

#include "dist/memory.h"

/* Put the block aside; the workspace is empty then. */
static enum status set_aside(struct workspace *workspace) {
  struct workspace *earlier;
  TRY(memory_alloc(sizeof *earlier, (void **)&earlier));
  *earlier = *workspace;
  *workspace = (struct workspace){.device = earlier->device, .earlier = earlier};
  return STATUS_OK;
}

enum status workspace_reserve(struct workspace *workspace, size_t bytes) {
  if (bytes <= workspace->bytes)
    return STATUS_OK;
  if (workspace->device == NULL)
    workspace_free(workspace); /* first, so that old and new are never held together */
  else if (workspace->data != NULL)
    TRY(set_aside(workspace));
  TRY(device_alloc(workspace->device, bytes, &workspace->data));
  workspace->bytes = bytes;
  return STATUS_OK;
}

void workspace_free(struct workspace *workspace) {
  struct workspace *earlier = workspace->earlier;
  device_free(workspace->device, &workspace->data);
  workspace->bytes = 0;
  workspace->earlier = NULL;
  if (earlier == NULL)
    return;
  workspace_free(earlier);
  memory_free((void **)&earlier);
}

size_t workspace_bytes(const struct workspace *workspace) {
  return workspace->bytes + (workspace->earlier != NULL ? workspace_bytes(workspace->earlier) : 0);
}
