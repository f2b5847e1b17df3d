/* Status codes, and the one sentence that goes with a failure.
 *
 * Every function that can fail returns `enum status`; results leave through
 * pointers.  The place that finds the fault words it once, with the offending
 * value and what to do about it:
 *
 *     REQUIRE(batch >= size, ERR_ARGUMENT,
 *             "--batch %d is smaller than the %d ranks; give at least one row to each", batch, size);
 *     TRY(dataset_open(path, &dataset));
 *
 * The sentence is kept per thread until the next failure.  Nothing below
 * launch/ prints it, exits, or aborts; comm_agree() (comm.h) carries it over ranks. */
#ifndef CONR_DIST_STATUS_H
#define CONR_DIST_STATUS_H

#include <stdbool.h>

enum status {
  STATUS_OK = 0,
  ERR_ARGUMENT, /* the caller's or user's request makes no sense         */
  ERR_FILE,     /* a file cannot be opened, read or written               */
  ERR_FORMAT,   /* a file was read, its content is not what it should be  */
  ERR_MEMORY,   /* an allocation failed                                   */
  ERR_COMM,     /* a communicator is unusable                             */
  ERR_NUMERIC,  /* a value is not finite                                  */
  ERR_DEVICE,   /* a GPU cannot be had, or failed                         */
  ERR_BUG       /* our own mistake                                        */
};

/* Record the sentence (printf style) and return `code`.  Local. */
enum status fail(enum status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__ /* it cannot see that fail() hands its code back */
#define fail(code, ...) ((fail)((code), __VA_ARGS__), (code))
#endif

/* The sentence of the last failure of this thread; "" before the first.  Borrowed until the next failure. */
const char *status_message(void);

/* Does every rank hold the last failure alike (comm_agree says so)?  Then all return in order and rank 0 speaks;
 * otherwise one rank alone failed, and the job must be aborted, since the others may be waiting for it. */
bool status_agreed(void);
void status_set_agreed(void); /* for comm_agree; the next failure clears it */

/* One or two words for a code, such as "bad argument". */
const char *status_name(enum status code);

/* Hand a failure up; for functions that hold nothing. */
#define TRY(call)                     \
  do {                                \
    enum status try_status_ = (call); \
    if (try_status_ != STATUS_OK)     \
      return try_status_;             \
  } while (0)

/* The same with clean-up; needs `enum status status` and a label. */
#define TRY_GOTO(call, label) \
  do {                        \
    status = (call);          \
    if (status != STATUS_OK)  \
      goto label;             \
  } while (0)

/* Start a failure with the values that broke the condition. */
#define REQUIRE(condition, code, ...)   \
  do {                                  \
    if (!(condition))                   \
      return fail((code), __VA_ARGS__); \
  } while (0)

#define REQUIRE_GOTO(condition, label, code, ...) \
  do {                                            \
    if (!(condition)) {                           \
      status = fail((code), __VA_ARGS__);         \
      goto label;                                 \
    }                                             \
  } while (0)

#endif
