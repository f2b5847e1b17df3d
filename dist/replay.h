/* Work that comes again, kept as graphs: what a host would queue piece by piece is launched as one.
 *
 *     struct replays *replays;
 *     TRY(replays_create(device, &replays));
 *     each time:
 *       TRY(replay_run(replays, &key, sizeof key, work, context));
 *     replays_destroy(&replays);
 *
 * work(context) queues on the device's main stream.  The first time of a key it is simply called: that is when objects
 * make room and choose algorithms.  The second time what it queues is not done but kept, and then launched; from the
 * third time on it is not called at all, and what was kept is launched.  So all that differs from one time to the next
 * lies in memory that is read when the work is done, or in the key.  The bits are the same either way.
 *
 * What work() does on the host beside queueing is done by replay_call() and replay_note():
 *
 *   replay_call()  what no graph can keep: a message between ranks, or work whose shape the host has to look up first.
 *                  The graph ends there, and another begins after it; at each launch the call is made between the two.
 *   replay_note()  what only the host remembers.  It queues nothing and cuts nothing.
 *
 * Collectives of communicators on device memory (comm_device.h) call replay_call() themselves, so that code between
 * them need not know whether it is kept.  Work in work must not be kept by itself: a replay_run() within another one
 * only calls.
 *
 * Memory that a graph reads or writes must not be freed before it is launched.  So where any block of the device was
 * freed since (device_frees()), what was kept is forgotten, and the next time counts as the first.
 *
 * All functions are local. */
#ifndef CONR_DIST_REPLAY_H
#define CONR_DIST_REPLAY_H

#include "dist/device.h"

struct replays;

/* device  borrowed: must outlive this; not the host */
enum status replays_create(struct device *device, struct replays **out);
void replays_destroy(struct replays **replays); /* NULL is fine */

typedef enum status replay_work(void *context);

/* key  [bytes], compared as such: fill what lies between its fields
 * Without `replays` (NULL), and for more than 64 keys, work() is called each time.  A failure is work()'s own; where it
 * happens while work is kept, nothing was done on the device, the stream is free, and the next time tries again. */
enum status replay_run(struct replays *replays, const void *key, size_t bytes, replay_work *work, void *context);

/* Keep the work now if replay_run() is about to, which then launches it: so that whoever can do without graphs can tell
 * the failure of keeping from that of the work.  Else nothing is done. */
enum status replay_keep(struct replays *replays, const void *key, size_t bytes, replay_work *work, void *context);

/* Would replay_run() launch what was kept before? */
bool replay_is_kept(const struct replays *replays, const void *key, size_t bytes);

/* Graphs launched so far. */
int64_t replays_launches(const struct replays *replays);

/* --- for work ------------------------------------------------------------------------------------------------ */

/* arguments  as they were given, copied; what they point to must still be there at each launch */
typedef enum status replay_function(const void *arguments);

/* Is what is queued now kept?  No within a replay_call(), and on the host. */
bool replay_records(const struct device *device);

/* At each launch function(arguments) is called, when the graph before it was launched; now, where nothing is kept. */
enum status replay_call(struct device *device, replay_function *function, const void *arguments, size_t bytes);

/* function(arguments) is called now, and where work is kept also at each launch. */
enum status replay_note(struct device *device, replay_function *function, const void *arguments, size_t bytes);

#endif
