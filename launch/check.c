/* conr check: what conr train looks at before its first batch, as a table, and whether what it would train can be
 * built. Nothing is written, and nothing is staged. */
#include "launch/commands.h"
#include "launch/preflight.h"
#include "launch/trainer.h"

#include <string.h>

/* Data, options and network together, up to the first batch. */
static enum status build_run(struct session *session, const struct config *config, struct findings *findings) {
  struct trainer *trainer = NULL;
  if (findings_count(findings, VERDICT_FAILED) > 0) {
    findings_add(findings, CHECK_RUN, VERDICT_SKIPPED, STATUS_OK, "not built, after the failures of other checks");
    return findings_gather(findings);
  }
  enum status status = trainer_create(session, config, &trainer);
  if (status != STATUS_OK && !status_agreed() && comm_size(session->comm) > 1)
    return status;
  if (status == STATUS_OK) {
    findings_add(findings, CHECK_RUN, VERDICT_OK, STATUS_OK,
                 "%lld training samples, %lld for validation, %zu parameters, %lld steps an epoch",
                 (long long)trainer->sampler.rows, (long long)dataset_split_rows(trainer->dataset, SPLIT_VAL),
                 net_parameters(trainer->net).elements, (long long)sampler_steps(&trainer->sampler));
    status = preflight_look_at_memory(session, findings);
  } else {
    char sentence[FINDING_BYTES];
    snprintf(sentence, sizeof sentence, "%.*s", FINDING_BYTES - 1, status_message());
    if (comm_rank(session->comm) == 0) /* all have the same one */
      findings_add(findings, CHECK_RUN, VERDICT_FAILED, status, "%s", sentence);
    status = findings_gather(findings);
  }
  trainer_destroy(&trainer);
  return status;
}

static enum status print(struct session *session, struct findings *findings, bool json, double seconds) {
  int ranks = comm_size(session->comm), hosts = findings_hosts(findings);
  if (json) {
    json_t *checks;
    TRY(findings_json(findings, &checks));
    json_t *object = json_pack("{s:i, s:i, s:f, s:i, s:i, s:o}", "ranks", ranks, "hosts", hosts, "seconds", seconds,
                               "failed", findings_count(findings, VERDICT_FAILED), "warnings",
                               findings_count(findings, VERDICT_WARNING), "checks", checks);
    REQUIRE(object != NULL, ERR_MEMORY, "out of memory for the findings");
    json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(object);
    return STATUS_OK;
  }
  findings_print(findings, stdout);
  printf("%d rank%s on %d host%s looked at in %.2f s: %d checks in order, %d warnings, %d failures\n", ranks,
         ranks > 1 ? "s" : "", hosts, hosts > 1 ? "s" : "", seconds, findings_count(findings, VERDICT_OK),
         findings_count(findings, VERDICT_WARNING), findings_count(findings, VERDICT_FAILED));
  return STATUS_OK;
}

/* The exit status is that of a failure, not of wrong usage, whatever failed. */
static enum status verdict_of(const struct findings *findings) {
  int failed = findings_count(findings, VERDICT_FAILED);
  if (failed == 0)
    return STATUS_OK;
  fail(ERR_FILE, "%d check%s failed", failed, failed > 1 ? "s" : "");
  status_set_agreed();
  return ERR_FILE;
}

enum status command_check(struct session *session, const struct config *config) {
  struct findings *findings = NULL;
  double began = log_seconds();
  enum status status;
  TRY(comm_agree(session->comm, findings_create(session->comm, &findings)));
  TRY_GOTO(preflight_look(session, config, findings), out);
  TRY_GOTO(build_run(session, config, findings), out);
  double seconds = log_seconds() - began;
  status = comm_rank(session->comm) == 0 ? print(session, findings, config->json, seconds) : STATUS_OK;
  status = comm_agree(session->comm, status);
  if (status == STATUS_OK)
    status = verdict_of(findings);
out:
  findings_destroy(&findings);
  return status;
}
