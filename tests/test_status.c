/* Codes, sentences and the macros that hand them up. */
#include "dist/status.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <string.h>

Test(status, there_is_no_sentence_before_the_first_failure) {
  cr_assert(eq(str, (char *)status_message(), ""));
}

Test(status, fail_returns_the_code_and_keeps_the_sentence) {
  enum status status = fail(ERR_FORMAT, "\"%s\" has %d rows but \"%s\" has %d", "target", 3, "image", 4);
  cr_assert(eq(int, status, ERR_FORMAT));
  cr_assert(eq(str, (char *)status_message(), "\"target\" has 3 rows but \"image\" has 4"));
}

Test(status, the_next_failure_replaces_all_of_a_longer_sentence) {
  fail(ERR_FILE, "a sentence that is longer than the one that follows it");
  fail(ERR_FILE, "short");
  cr_assert(eq(str, (char *)status_message(), "short"));
}

Test(status, arguments_may_point_into_the_old_sentence) {
  fail(ERR_FILE, "cannot open %s", "a.h5");
  enum status status = fail(ERR_ARGUMENT, "--data: %s (%s)", status_message(), status_message() + 7);
  cr_assert(eq(int, status, ERR_ARGUMENT));
  cr_assert(eq(str, (char *)status_message(), "--data: cannot open a.h5 (open a.h5)"));
}

Test(status, percent_signs_of_an_argument_are_plain_text) {
  fail(ERR_ARGUMENT, "%s", "lower --keep 90%s by 10%n");
  cr_assert(eq(str, (char *)status_message(), "lower --keep 90%s by 10%n"));
}

Test(status, a_sentence_that_is_too_long_is_cut_not_overrun) {
  char text[5000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  cr_assert(eq(int, fail(ERR_FILE, "cannot open %s", text), ERR_FILE));
  size_t length = strlen(status_message());
  cr_assert(ge(sz, length, 200), "too little of it is left: %zu", length);
  cr_assert(lt(sz, length, strlen("cannot open ") + strlen(text)));
  cr_assert(eq(int, strncmp(status_message(), "cannot open xxx", 15), 0));
  cr_assert(eq(sz, strspn(status_message() + 12, "x"), length - 12));
}

Test(status, a_failure_is_agreed_on_when_said_so_and_the_next_one_is_not) {
  cr_assert(eq(int, status_agreed(), 0));
  fail(ERR_FILE, "all ranks know this");
  cr_assert(eq(int, status_agreed(), 0));
  status_set_agreed();
  cr_assert(eq(int, status_agreed(), 1));
  cr_assert(eq(str, (char *)status_message(), "all ranks know this"));
  fail(ERR_FILE, "this rank alone");
  cr_assert(eq(int, status_agreed(), 0));
}

static void *fail_elsewhere(void *seen) {
  *(bool *)seen = strcmp(status_message(), "") == 0;
  fail(ERR_MEMORY, "from the other thread");
  *(bool *)seen = *(bool *)seen && strcmp(status_message(), "from the other thread") == 0;
  return NULL;
}

Test(status, each_thread_has_a_sentence_of_its_own) {
  pthread_t thread;
  bool own_sentence_there = false;
  fail(ERR_FILE, "from the first thread");
  cr_assert(eq(int, pthread_create(&thread, NULL, fail_elsewhere, &own_sentence_there), 0));
  cr_assert(eq(int, pthread_join(thread, NULL), 0));
  cr_assert(eq(int, own_sentence_there, 1));
  cr_assert(eq(str, (char *)status_message(), "from the first thread"));
}

Test(status, every_code_has_a_name_of_its_own) {
  for (int code = STATUS_OK; code <= ERR_BUG; code++) {
    const char *name = status_name((enum status)code);
    cr_assert(strlen(name) > 0, "code %d", code);
    cr_assert(ne(str, (char *)name, "unknown status"), "code %d", code);
    for (int other = STATUS_OK; other < code; other++)
      cr_assert(ne(str, (char *)name, (char *)status_name((enum status)other)), "codes %d and %d", code, other);
  }
  cr_assert(eq(str, (char *)status_name((enum status)99), "unknown status"));
}

/* ---- the macros ---- */

static enum status require_even(int value, int *evaluated) {
  REQUIRE(value % 2 == 0, ERR_ARGUMENT, "%d is odd (%d)", value, ++*evaluated);
  return STATUS_OK;
}

Test(status, require_starts_a_failure_and_words_it_only_when_it_fails) {
  int evaluated = 0;
  cr_assert(eq(int, require_even(4, &evaluated), STATUS_OK));
  cr_assert(eq(int, evaluated, 0));
  cr_assert(eq(str, (char *)status_message(), ""));
  cr_assert(eq(int, require_even(5, &evaluated), ERR_ARGUMENT));
  cr_assert(eq(int, evaluated, 1));
  cr_assert(eq(str, (char *)status_message(), "5 is odd (1)"));
}

static enum status call(enum status result, int *calls) {
  ++*calls;
  return result;
}

static enum status try_in_turn(enum status first, enum status second, int *calls) {
  TRY(call(first, calls));
  TRY(call(second, calls));
  return STATUS_OK;
}

Test(status, try_hands_up_the_first_failure_and_calls_once) {
  int calls = 0;
  cr_assert(eq(int, try_in_turn(STATUS_OK, STATUS_OK, &calls), STATUS_OK));
  cr_assert(eq(int, calls, 2));
  cr_assert(eq(int, try_in_turn(ERR_COMM, ERR_FILE, &calls), ERR_COMM));
  cr_assert(eq(int, calls, 3));
  cr_assert(eq(int, try_in_turn(STATUS_OK, ERR_FILE, &calls), ERR_FILE));
  cr_assert(eq(int, calls, 5));
}

static enum status clean_up_after(enum status result, bool condition, int *cleaned) {
  enum status status = STATUS_OK;
  int calls = 0;
  TRY_GOTO(call(result, &calls), out);
  REQUIRE_GOTO(condition, out, ERR_NUMERIC, "not %s", "finite");
out:
  *cleaned += calls;
  return status;
}

Test(status, goto_forms_pass_the_clean_up_with_the_code) {
  int cleaned = 0;
  cr_assert(eq(int, clean_up_after(STATUS_OK, true, &cleaned), STATUS_OK));
  cr_assert(eq(int, clean_up_after(ERR_FILE, true, &cleaned), ERR_FILE));
  cr_assert(eq(int, clean_up_after(STATUS_OK, false, &cleaned), ERR_NUMERIC));
  cr_assert(eq(int, cleaned, 3));
  cr_assert(eq(str, (char *)status_message(), "not finite"));
}
