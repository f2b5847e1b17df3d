/* Sentences of all ranks, equal ones together. */
#define _GNU_SOURCE /* strverscmp */
#include "launch/findings.h"

#include "dist/memory.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_HOSTS 8

struct finding {
  enum check check;
  enum verdict verdict;
  enum status code;
  char sentence[FINDING_BYTES];
};

/* One sentence and the hosts that it is true of. */
struct told {
  enum check check;
  enum verdict verdict;
  enum status code;
  const char *sentence; /* all of these lie in findings->text */
  const char **host;    /* owned: [hosts] */
  int hosts;
};

struct findings {
  struct comm *comm; /* borrowed */
  int count;
  struct finding own[FINDINGS_MOST];
  /* Of all ranks, once gathered: */
  char *text;
  struct told *told;
  int told_count;
  int job_hosts;
  char shown[FINDING_BYTES + 1024];
};

const char *check_name(enum check check) {
  static const char *const names[CHECKS] = {"program", "options",  "GPUs",        "data",          "output",
                                            "staging", "/dev/shm", "open files",  "locked memory", "address space",
                                            "clocks",  "network",  "collectives", "run",           "memory"};
  return names[check];
}

const char *verdict_name(enum verdict verdict) {
  static const char *const names[] = {"skipped", "ok", "warning", "failed"};
  return names[verdict];
}

enum status findings_create(struct comm *comm, struct findings **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  (*out)->comm = comm;
  return STATUS_OK;
}

static void forget(struct findings *findings) {
  for (int i = 0; i < findings->told_count; i++)
    memory_free((void **)&findings->told[i].host);
  memory_free((void **)&findings->told);
  memory_free((void **)&findings->text);
  findings->told_count = 0;
}

void findings_destroy(struct findings **findings) {
  if (*findings == NULL)
    return;
  forget(*findings);
  memory_free((void **)findings);
}

void findings_add(struct findings *findings, enum check check, enum verdict verdict, enum status code,
                  const char *format, ...) {
  bool spoken = verdict >= VERDICT_WARNING || comm_rank(findings->comm) == 0;
  if (!spoken || findings->count == FINDINGS_MOST)
    return;
  struct finding *finding = &findings->own[findings->count++];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(finding->sentence, sizeof finding->sentence, format, arguments);
  va_end(arguments);
  finding->sentence[strcspn(finding->sentence, "\n")] = '\0';
  finding->check = check;
  finding->verdict = verdict;
  finding->code = code;
}

/* ---- from all ranks ------------------------------------------------------------------------- */

/* A line each: "check verdict code host\tsentence". */
static size_t write_own(const struct findings *findings, char *text, size_t bytes) {
  size_t used = 0;
  for (int i = 0; i < findings->count; i++) {
    const struct finding *finding = &findings->own[i];
    used += (size_t)snprintf(text + used, bytes - used, "%d %d %d %s\t%s\n", (int)finding->check, (int)finding->verdict,
                             (int)finding->code, comm_host(findings->comm), finding->sentence);
  }
  return used;
}

static enum status gather_text(struct findings *findings, const char *own, size_t bytes) {
  int size = comm_size(findings->comm);
  int64_t count = (int64_t)bytes, *counts = NULL, all = 0;
  enum status status;
  TRY_GOTO(comm_agree(findings->comm, memory_alloc((size_t)size * sizeof *counts, (void **)&counts)), out);
  TRY_GOTO(comm_gather_each(findings->comm, &count, sizeof count, counts), out);
  for (int rank = 0; rank < size; rank++)
    all += counts[rank];
  TRY_GOTO(comm_agree(findings->comm, memory_alloc((size_t)all + 1, (void **)&findings->text)), out);
  findings->text[all] = '\0';
  if (all > 0)
    status = comm_gather_rows(findings->comm, own, counts, 1, findings->text);
out:
  memory_free((void **)&counts);
  return status;
}

/* Put a host to the sentence; most of them are of one host. */
static enum status note_host(struct told *told, const char *host) {
  for (int i = 0; i < told->hosts; i++)
    if (strcmp(told->host[i], host) == 0)
      return STATUS_OK;
  const char **more = NULL;
  if ((told->hosts & (told->hosts - 1)) == 0) { /* full at each power of two */
    size_t room = told->hosts > 0 ? 2 * (size_t)told->hosts : 1;
    TRY(memory_alloc(room * sizeof *more, (void **)&more));
    if (told->hosts > 0)
      memcpy(more, told->host, (size_t)told->hosts * sizeof *more);
    memory_free((void **)&told->host);
    told->host = more;
  }
  told->host[told->hosts++] = host;
  return STATUS_OK;
}

static enum status note(struct findings *findings, const struct told *line, const char *host) {
  for (int i = 0; i < findings->told_count; i++) {
    struct told *told = &findings->told[i];
    if (told->check == line->check && told->verdict == line->verdict && strcmp(told->sentence, line->sentence) == 0)
      return note_host(told, host);
  }
  findings->told[findings->told_count] = *line;
  return note_host(&findings->told[findings->told_count++], host);
}

static enum status read_lines(struct findings *findings) {
  char *rest = findings->text, *line;
  while ((line = strsep(&rest, "\n")) != NULL && line[0] != '\0') {
    int check, verdict, code, at = 0;
    char *tab = strchr(line, '\t');
    if (tab == NULL || sscanf(line, "%d %d %d %n", &check, &verdict, &code, &at) != 3)
      return fail(ERR_BUG, "a finding cannot be read: %s", line);
    *tab = '\0';
    struct told told = {
        .check = (enum check)check, .verdict = (enum verdict)verdict, .code = (enum status)code, .sentence = tab + 1};
    TRY(note(findings, &told, line + at));
  }
  return STATUS_OK;
}

static int by_host(const void *left, const void *right) {
  const struct told *a = left, *b = right;
  int order = strverscmp(a->host[0], b->host[0]);
  return order != 0 ? order : (int)a->check - (int)b->check;
}

static enum status count_hosts(struct findings *findings) {
  double hosts = comm_node_rank(findings->comm) == 0;
  TRY(comm_sum(findings->comm, F64, &hosts, 1));
  findings->job_hosts = (int)hosts;
  return STATUS_OK;
}

/* Local: told apart, and sorted. */
static enum status sort_lines(struct findings *findings) {
  size_t lines = 1;
  for (const char *next = findings->text; *next != '\0'; next++)
    lines += *next == '\n';
  TRY(memory_alloc_zero(lines * sizeof *findings->told, (void **)&findings->told));
  TRY(read_lines(findings));
  if (findings->told_count > 0)
    qsort(findings->told, (size_t)findings->told_count, sizeof *findings->told, by_host);
  return STATUS_OK;
}

enum status findings_gather(struct findings *findings) {
  size_t room = FINDINGS_MOST * (FINDING_BYTES + 320);
  char *own = NULL;
  enum status status;
  forget(findings);
  TRY_GOTO(comm_agree(findings->comm, memory_alloc(room, (void **)&own)), out);
  TRY_GOTO(count_hosts(findings), out);
  TRY_GOTO(gather_text(findings, own, write_own(findings, own, room)), out);
  status = comm_agree(findings->comm, sort_lines(findings));
out:
  memory_free((void **)&own);
  return status;
}

/* ---- told ----------------------------------------------------------------------------------- */

static enum verdict worst_of(const struct findings *findings, enum check check) {
  enum verdict worst = VERDICT_SKIPPED;
  for (int i = 0; i < findings->told_count; i++)
    if (findings->told[i].check == check && findings->told[i].verdict > worst)
      worst = findings->told[i].verdict;
  return worst;
}

int findings_hosts(const struct findings *findings) {
  return findings->job_hosts;
}

int findings_count(const struct findings *findings, enum verdict verdict) {
  int count = 0;
  if (verdict == VERDICT_OK) {
    for (int check = 0; check < CHECKS; check++)
      count += worst_of(findings, (enum check)check) == VERDICT_OK;
    return count;
  }
  for (int i = 0; i < findings->told_count; i++)
    count += findings->told[i].verdict == verdict;
  return count;
}

static const char *sentence_of(struct findings *findings, const struct told *told) {
  char *text = findings->shown;
  size_t bytes = sizeof findings->shown, used = (size_t)snprintf(text, bytes, "%s", told->sentence);
  if (findings->job_hosts == 1 || told->verdict < VERDICT_WARNING)
    return text;
  if (told->hosts == 1)
    snprintf(text + used, bytes - used, " (on %s)", told->host[0]);
  else if (told->hosts == findings->job_hosts)
    snprintf(text + used, bytes - used, " (on all %d hosts)", told->hosts);
  else {
    used += (size_t)snprintf(text + used, bytes - used, " (on %d hosts:", told->hosts);
    for (int i = 0; i < told->hosts && i < SHOWN_HOSTS; i++)
      used += (size_t)snprintf(text + used, bytes - used, "%s %.80s", i > 0 ? "," : "", told->host[i]);
    snprintf(text + used, bytes - used, "%s)", told->hosts > SHOWN_HOSTS ? ", ..." : "");
  }
  return text;
}

const char *findings_sentence(struct findings *findings, enum verdict verdict, int i) {
  for (int k = 0; k < findings->told_count; k++)
    if (findings->told[k].verdict == verdict && i-- == 0)
      return sentence_of(findings, &findings->told[k]);
  return NULL;
}

enum status findings_conclude(struct findings *findings) {
  int failed = findings_count(findings, VERDICT_FAILED);
  enum status code = STATUS_OK;
  for (int i = 0; i < findings->told_count && code == STATUS_OK; i++)
    code = findings->told[i].verdict == VERDICT_FAILED ? findings->told[i].code : STATUS_OK;
  if (failed == 0)
    return STATUS_OK;
  if (failed == 1)
    fail(code, "%s", findings_sentence(findings, VERDICT_FAILED, 0));
  else
    fail(code, "%d checks failed, as told above; nothing was changed", failed);
  for (int i = 0; i < failed && failed > 1 && comm_rank(findings->comm) == 0; i++)
    fprintf(stderr, "conr: check: %s\n", findings_sentence(findings, VERDICT_FAILED, i));
  status_set_agreed();
  return code;
}

void findings_print(struct findings *findings, FILE *out) {
  for (int check = 0; check < CHECKS; check++) {
    enum verdict worst = worst_of(findings, (enum check)check);
    const char *name = check_name((enum check)check);
    for (int i = 0; i < findings->told_count; i++) {
      const struct told *told = &findings->told[i];
      /* What is in order on rank 0's host is no news where it is not in order elsewhere. */
      if (told->check != (enum check)check || (worst >= VERDICT_WARNING && told->verdict < VERDICT_WARNING))
        continue;
      fprintf(out, "%-14s %-8s %s\n", name, verdict_name(told->verdict), sentence_of(findings, told));
      name = "";
    }
  }
}

static json_t *json_of(const struct told *told) {
  json_t *hosts = json_array();
  for (int i = 0; i < told->hosts && told->verdict >= VERDICT_WARNING; i++)
    json_array_append_new(hosts, json_string(told->host[i]));
  return json_pack("{s:s, s:o, s:s}", "result", verdict_name(told->verdict), "hosts", hosts, "sentence",
                   told->sentence);
}

enum status findings_json(const struct findings *findings, json_t **out) {
  *out = json_array();
  for (int check = 0; check < CHECKS; check++) {
    json_t *list = json_array();
    for (int i = 0; i < findings->told_count; i++)
      if (findings->told[i].check == (enum check)check)
        json_array_append_new(list, json_of(&findings->told[i]));
    if (json_array_size(list) > 0)
      json_array_append_new(*out, json_pack("{s:s, s:s, s:O}", "check", check_name((enum check)check), "result",
                                            verdict_name(worst_of(findings, (enum check)check)), "findings", list));
    json_decref(list);
  }
  REQUIRE(*out != NULL, ERR_MEMORY, "out of memory for the findings");
  return STATUS_OK;
}
