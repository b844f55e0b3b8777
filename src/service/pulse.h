/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PULSE_H
#define FUSEIMG_PULSE_H

/*
 * Does the worker live? Judged by two signs:
 *
 *   - It answers a question (PING) on the channel. That is its main thread, which does little
 *     else while requests are served: now and then it tidies up the image.
 *   - The requests that its threads have in hand get on: base/activity.h's counters in the slots
 *     tell a thread that waits for the host's disk from one that runs.
 *
 * A disk that hangs is nobody's fault here, and killing somebody mends nothing: it is reported. A
 * worker that hangs is killed, and its successor executes what it had in hand.
 */

#include <stdbool.h>
#include <stdint.h>

#include "session/slots.h"

enum pulse_verdict {
	PULSE_FINE,
	PULSE_DISK,   /* the host's disk does not answer */
	PULSE_STUCK,  /* a request does not get on, and no disk is to blame */
	PULSE_SILENT, /* PING is not answered */
};

/* How long is too long. */
struct pulse_limits {
	uint64_t disk_us, stuck_us, silent_us;
};

struct pulse {
	struct {
		uint64_t unique;
		uint32_t io;
		uint64_t since_us; /* when this was first seen */
		uint64_t held_us;  /* when the request was first seen */
	} slots[SLOTS_MAX];
	uint32_t main_io;
	uint64_t main_since_us;
	uint64_t asked_us; /* PING went out then and was not answered; 0: none is under way */
	/* Of the last look */
	enum pulse_verdict verdict;
	uint64_t since_us; /* when the trouble began */
	unsigned slot; /* PULSE_DISK, PULSE_STUCK: the one that is longest in it; n: main thread */
};

/* WatchdogSec= says how long a worker may hang; 0 (none): a minute. */
void pulse_set_limits(struct pulse_limits *l, uint64_t watchdog_us);

/* One look at a worker that serves. */
enum pulse_verdict pulse_look(struct pulse *p, const struct slots *slots,
			      const struct pulse_limits *limits, uint64_t now_us);
/* Was PING not answered for too long, for whatever reason? */
bool pulse_is_overdue(const struct pulse *p, const struct pulse_limits *limits, uint64_t now_us);
/* There is another worker, or none. */
void pulse_reset(struct pulse *p);

#endif
