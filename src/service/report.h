/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_REPORT_H
#define FUSEIMG_REPORT_H

/*
 * What the service manager is told while an export runs: that it is ready, how it fares (STATUS=,
 * for a person who looks at `systemctl status`), that a timeout should be longer because there is
 * progress, and that we are alive. Nothing here waits for anybody.
 */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/diag.h"
#include "service/notify.h"
#include "service/progress.h"
#include "session/slots.h"

struct supervisor;

struct report {
	struct notify notify;
	sd_event_source *timer;
	uint64_t period_us; /* between two looks */
	uint64_t sent_us;   /* the last STATUS= */
	char status[DIAG_MAX];
	char users[DIAG_MAX / 2];   /* loop devices and mounts on top */
	char problem[DIAG_MAX / 2]; /* the last error, with its time; "" none */
	struct slots_sum seen;	    /* when users was found */
	struct progress progress;
	uint64_t start_us;
	bool stalled;	    /* of a start or a stop: nothing gets on */
	uint64_t stop_us;   /* when we were told to stop */
	char why[DIAG_MAX]; /* what report_waiting() was told last */
	uint64_t waited_us;
	uint64_t worked_us; /* when there was last a worker, or a reason for none */
};

/* From the environment, before anything else; without an event loop so far. */
void report_init(struct report *r);
/* The looks begin, which are also those at the worker (examine.c). 0 or -errno. */
int report_start(struct supervisor *s);
void report_finish(struct supervisor *s);

/* The export can be used (again, after report_reloading()). */
void report_ready(struct supervisor *s);
/* A reload begins; report_ready() ends it, whatever came of it. */
void report_reloading(struct supervisor *s);
/* It is certain that this is the end: unmounted. */
void report_stopping(struct supervisor *s);
/* How it ended, when it is not as it should be. */
void report_failure(struct report *r, const struct diag *diag);

/* The start waits for something that others have; the sentence says what. May come often. */
void report_waiting(struct supervisor *s, const char *why);

/* Something has changed that STATUS= should tell now. */
void report_refresh(struct supervisor *s);
/* An error that a person should hear of; it stays in STATUS= until the next one. */
void report_problem(struct supervisor *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The sentence for STATUS=, from what the supervisor knows; split from the above for tests. */
void report_compose(const struct supervisor *s, char *buf, size_t size);

#endif
