/* What a look at all hosts has found: a verdict and a sentence for each thing that was looked at, told once however
 * many hosts found the same.
 *
 *     struct findings *findings;
 *     TRY(findings_create(comm, &findings));
 *     findings_add(findings, CHECK_DATA, VERDICT_FAILED, ERR_FILE, "cannot open %s", path);     each its own
 *     TRY(findings_gather(findings));                                      now all ranks know all
 *     findings_print(findings, stdout);
 *     status = findings_conclude(findings);
 *     findings_destroy(&findings); */
#ifndef CONR_LAUNCH_FINDINGS_H
#define CONR_LAUNCH_FINDINGS_H

#include "dist/comm.h"

#include <jansson.h>
#include <stdio.h>

enum check {
  CHECK_PROGRAM,
  CHECK_OPTIONS,
  CHECK_DEVICE,
  CHECK_DATA,
  CHECK_OUTPUT,
  CHECK_STAGE,
  CHECK_SHARED_MEMORY,
  CHECK_OPEN_FILES,
  CHECK_LOCKED_MEMORY,
  CHECK_ADDRESS_SPACE,
  CHECK_CLOCK,
  CHECK_NETWORK,
  CHECK_COLLECTIVES,
  CHECK_RUN,
  CHECK_MEMORY,
  CHECKS
};

enum verdict { VERDICT_SKIPPED, VERDICT_OK, VERDICT_WARNING, VERDICT_FAILED };

/* "shared memory", "ok" */
const char *check_name(enum check check);
const char *verdict_name(enum verdict verdict);

struct findings;

/* comm  borrowed: must outlive this.  Local. */
enum status findings_create(struct comm *comm, struct findings **out);
void findings_destroy(struct findings **findings); /* NULL is fine */

/* Local.  Of what is in order, or skipped, rank 0's words alone are kept.  `code` is the failure's, else STATUS_OK.
 * More than FINDINGS_MOST of a rank, and what follows a line end in a sentence, are dropped. */
#define FINDINGS_MOST 40
#define FINDING_BYTES 600
void findings_add(struct findings *findings, enum check check, enum verdict verdict, enum status code,
                  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Bring those of all ranks to all; may be repeated with more.  Collective. */
enum status findings_gather(struct findings *findings);

/* Local from here on, and the same on all ranks. */

/* Of the job. */
int findings_hosts(const struct findings *findings);

/* How many have this verdict, each told once.  VERDICT_OK: checks all of whose findings are in order. */
int findings_count(const struct findings *findings, enum verdict verdict);

/* The i-th of a verdict, sorted by host: its sentence, and in several hosts' jobs " (on host2)" or " (on 17 hosts: a,
 * b, ...)" behind it; NULL behind the last.  Borrowed until the next call. */
const char *findings_sentence(struct findings *findings, enum verdict verdict, int i);

/* STATUS_OK when nothing has failed.  One failure is told by its sentence; of several rank 0 prints all on standard
 * error, a line each, and the status counts them.  All ranks fail alike (status_agreed). */
enum status findings_conclude(struct findings *findings);

/* A table of checks, a line or more each. */
void findings_print(struct findings *findings, FILE *out);

/* [{"check", "result", "findings": [{"result", "hosts": [...], "sentence"}]}]; a new reference.  ERR_MEMORY. */
enum status findings_json(const struct findings *findings, json_t **out);

#endif
