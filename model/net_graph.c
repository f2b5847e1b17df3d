/* Passes of a network as graphs, with what the host does between them.
 *
 * A kept pass is a list of entries: graphs, and calls of the host in the order in which they came.  Calls that queue
 * nothing (gradient_ready of a parameter whose bucket is not full) do not cut a graph: they wait for its end. */
#include "model/layer.h"

#include "dist/memory.h"

#include <stdio.h>
#include <string.h>

struct entry {
  enum { ENTRY_GRAPH, ENTRY_SUM, ENTRY_READY, ENTRY_PROGRESS } kind;
  struct graph *graph; /* owned */
  void *data;          /* SUM: doubles of batch norm */
  size_t count;        /* SUM: of them; READY: the parameter's index */
};

/* Kinds of passes that are remembered; more run as always. */
#define MOST_KEPT 64

struct kept_pass {
  struct graph_key key;
  int seen; /* passes of this key so far */
  bool whole;
  struct entry *entries; /* owned [room] */
  int count, room;
};

struct net_graphs {
  struct kept_pass kept[MOST_KEPT];
  int count;
  struct kept_pass *at; /* the pass that is recorded or launched; NULL = none */
  bool recording;
  bool open; /* a graph of it has begun and not ended */
  int64_t launches;
};

void net_use_graphs(struct net *net) {
  /* Without memory for it a net works all the same. */
  if (net->ops->device != NULL && net->graphs == NULL)
    memory_alloc_zero(sizeof *net->graphs, (void **)&net->graphs);
}

int64_t net_graph_launches(const struct net *net) {
  return net->graphs != NULL ? net->graphs->launches : 0;
}

static void forget(struct kept_pass *pass) {
  for (int i = 0; i < pass->count; i++)
    graph_destroy(&pass->entries[i].graph);
  memory_free((void **)&pass->entries);
  pass->count = pass->room = 0;
  pass->whole = false;
}

void graphs_destroy(struct net *net) {
  struct net_graphs *graphs = net->graphs;
  for (int i = 0; graphs != NULL && i < graphs->count; i++)
    forget(&graphs->kept[i]);
  memory_free((void **)&net->graphs);
}

/* --- recording ------------------------------------------------------------------------------------------------ */

static enum status append(struct kept_pass *pass, struct entry entry) {
  if (pass->count == pass->room) {
    int room = pass->room > 0 ? 2 * pass->room : 32;
    struct entry *entries;
    TRY(memory_alloc((size_t)room * sizeof *entries, (void **)&entries));
    if (pass->count > 0)
      memcpy(entries, pass->entries, (size_t)pass->count * sizeof *entries);
    memory_free((void **)&pass->entries);
    pass->entries = entries;
    pass->room = room;
  }
  pass->entries[pass->count++] = entry;
  return STATUS_OK;
}

/* The place of a graph in the list is where it begins: calls that wait for its end follow. */
static enum status begin_graph(struct net *net) {
  TRY(append(net->graphs->at, (struct entry){.kind = ENTRY_GRAPH}));
  TRY(graph_begin(device_main(net->ops->device)));
  net->graphs->open = true;
  return STATUS_OK;
}

static struct entry *open_graph(struct kept_pass *pass) {
  int i = pass->count - 1;
  while (pass->entries[i].kind != ENTRY_GRAPH)
    i--;
  return &pass->entries[i];
}

/* What was kept is done now. */
static enum status end_graph(struct net *net) {
  struct stream *main = device_main(net->ops->device);
  struct entry *entry = open_graph(net->graphs->at);
  net->graphs->open = false;
  TRY(graph_end(main, &entry->graph));
  net->graphs->launches++;
  return graph_launch(entry->graph, main);
}

static bool records(const struct net *net) {
  return net->graphs != NULL && net->graphs->recording;
}

enum status graphs_sum(struct net *net, void *data, size_t count) {
  if (!records(net))
    return comm_sum(net->comm, F64, data, count);
  TRY(end_graph(net));
  TRY(comm_sum(net->comm, F64, data, count));
  TRY(append(net->graphs->at, (struct entry){.kind = ENTRY_SUM, .data = data, .count = count}));
  TRY(append(net->graphs->at, (struct entry){.kind = ENTRY_PROGRESS}));
  return begin_graph(net);
}

static enum status call_ready(const struct net_hooks *hooks, size_t index) {
  return hooks != NULL && hooks->gradient_ready != NULL ? hooks->gradient_ready(hooks->context, index) : STATUS_OK;
}

static enum status call_progress(const struct net_hooks *hooks) {
  return hooks != NULL && hooks->progress != NULL ? hooks->progress(hooks->context) : STATUS_OK;
}

enum status graphs_gradient_ready(struct net *net, const struct net_hooks *hooks, size_t index) {
  if (!records(net))
    return call_ready(hooks, index);
  bool sends = hooks != NULL && hooks->gradient_ready != NULL &&
               (hooks->gradient_sends == NULL || hooks->gradient_sends(hooks->context, index));
  if (sends)
    TRY(end_graph(net));
  TRY(call_ready(hooks, index));
  TRY(append(net->graphs->at, (struct entry){.kind = ENTRY_READY, .count = index}));
  if (!sends)
    return STATUS_OK;
  TRY(append(net->graphs->at, (struct entry){.kind = ENTRY_PROGRESS}));
  return begin_graph(net);
}

/* A graph is one piece of work: there is no between. */
enum status graphs_progress(struct net *net, const struct net_hooks *hooks) {
  return records(net) ? STATUS_OK : call_progress(hooks);
}

/* --- passes --------------------------------------------------------------------------------------------------- */

static bool same(const struct graph_key *a, const struct graph_key *b) {
  return a->rows == b->rows && a->inputs == b->inputs && a->from == b->from && a->also == b->also &&
         a->first == b->first && a->end == b->end && a->backward == b->backward && a->training == b->training &&
         a->accumulate == b->accumulate && a->keep_statistics == b->keep_statistics && a->hooks == b->hooks;
}

static struct kept_pass *find(struct net_graphs *graphs, const struct graph_key *key) {
  for (int i = 0; i < graphs->count; i++)
    if (same(&graphs->kept[i].key, key))
      return &graphs->kept[i];
  if (graphs->count == MOST_KEPT)
    return NULL;
  graphs->kept[graphs->count].key = *key;
  return &graphs->kept[graphs->count++];
}

enum status graphs_enter(struct net *net, const struct graph_key *key, enum graph_mode *mode) {
  struct net_graphs *graphs = net->graphs;
  *mode = GRAPH_OFF;
  if (graphs == NULL || key->rows == 0 || (key->training && net->dropout_count > 0))
    return STATUS_OK;
  graphs->at = find(graphs, key);
  if (graphs->at == NULL || graphs->at->seen++ == 0) /* the first makes the room and the choices that stay */
    return STATUS_OK;
  *mode = graphs->at->whole ? GRAPH_LAUNCHES : GRAPH_RECORDS;
  if (*mode == GRAPH_LAUNCHES)
    return STATUS_OK;
  enum status status = begin_graph(net);
  graphs->recording = status == STATUS_OK;
  if (status != STATUS_OK)
    forget(graphs->at);
  return status;
}

/* The stream is to be free again, and the sentence to be told is that of the operation. */
static enum status give_up(struct net *net, enum status status) {
  struct graph *graph = NULL;
  char sentence[1024];
  snprintf(sentence, sizeof sentence, "%s", status_message());
  if (net->graphs->open && graph_end(device_main(net->ops->device), &graph) != STATUS_OK)
    fail(status, "%s", sentence);
  net->graphs->open = false;
  graph_destroy(&graph);
  forget(net->graphs->at);
  return status;
}

enum status graphs_leave(struct net *net, enum status status) {
  struct net_graphs *graphs = net->graphs;
  if (!records(net))
    return status;
  graphs->recording = false;
  if (status == STATUS_OK)
    status = end_graph(net);
  if (status != STATUS_OK)
    return give_up(net, status);
  graphs->at->whole = true;
  return STATUS_OK;
}

enum status graphs_launch(struct net *net, const struct net_hooks *hooks) {
  const struct kept_pass *pass = net->graphs->at;
  for (int i = 0; i < pass->count; i++) {
    const struct entry *entry = &pass->entries[i];
    switch (entry->kind) {
    case ENTRY_GRAPH:
      net->graphs->launches++;
      TRY(graph_launch(entry->graph, device_main(net->ops->device)));
      break;
    case ENTRY_SUM:
      TRY(comm_sum(net->comm, F64, entry->data, entry->count));
      break;
    case ENTRY_READY:
      TRY(call_ready(hooks, entry->count));
      break;
    case ENTRY_PROGRESS:
      TRY(call_progress(hooks));
      break;
    }
  }
  return STATUS_OK;
}
