/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A look every few seconds. It costs little while nothing happens: the counters are compared, and
 * the rest is done only when they have moved or something special is under way.
 *
 * Timeouts: the service manager's own ones (TimeoutStartSec=, TimeoutStopSec=) end a start or stop
 * that does not get on. As long as it does, each look asks for some more time. Who is told to stop
 * while somebody holds the export idly open is given REPORT_BUSY_US: at a shutdown those who hold
 * it are being stopped themselves.
 */

#include "service/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>

#include "base/log.h"
#include "base/parse.h"
#include "service/busy.h"
#include "service/core.h"

enum {
	REPORT_PERIOD_US = 5 * 1000 * 1000,
	REPORT_PATIENCE_US = 15 * 1000 * 1000, /* without progress */
	REPORT_EXTEND_US = 30 * 1000 * 1000,
	REPORT_BUSY_US = 300 * 1000 * 1000,
	REPORT_IDLE_US = 60 * 1000 * 1000, /* without a worker, nor a reason */
	REPORT_DOG_DIVISOR = 3,		   /* looks in one WatchdogSec= */
};

static uint64_t report_now(struct supervisor *s)
{
	uint64_t now = 0;

	sd_event_now(s->event, CLOCK_MONOTONIC, &now);
	return now;
}

/* The same without a loop. */
static uint64_t report_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void report_add(char *buf, size_t size, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void report_add(char *buf, size_t size, const char *fmt, ...)
{
	size_t n = strlen(buf);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf + n, size - n, fmt, ap);
	va_end(ap);
}

/* What is special now; "" when it just serves. */
static void report_add_state(const struct supervisor *s, char *buf, size_t size)
{
	if (s->pulse.verdict == PULSE_DISK ||
	    (s->report.stalled && s->attend.phase == ATTEND_CLOSING))
		report_add(buf, size, "The storage of the image does not answer: ");
	if (s->unmount.gone)
		report_add(buf, size, "Unmounted, writing the last of it to stable storage: ");
	else if (s->unmount.wanted && s->unmount.busy[0])
		report_add(buf, size, "Waiting to unmount, in use by %s: ", s->unmount.busy);
	else if (s->unmount.wanted)
		report_add(buf, size, "Unmounting: ");
	else if (!s->mounted)
		report_add(buf, size, "Opening: ");
	else if (s->attend.accused)
		report_add(buf, size, "The worker hangs and is being replaced: ");
	else if (s->attend.phase == ATTEND_NONE || s->attend.phase == ATTEND_OPENING ||
		 s->attend.phase == ATTEND_STARTING)
		report_add(buf, size, "A new worker is being started: ");
}

/* How many files there are beside the disk, and which of them "partition" leads to. */
static void report_add_partitions(const struct supervisor *s, char *buf, size_t size)
{
	const struct slots_windows *w;
	const struct slots_names *names;

	if (!s->slots.head)
		return;
	w = &s->slots.head->windows;
	names = &w->names[atomic_load(&w->live) & 1];
	if (names->n == 0)
		return;
	report_add(buf, size, ", %u partition%s", names->n, names->n > 1 ? "s" : "");
	if (names->selected && s->config->boot.partition)
		report_add(buf, size, ", %s is part%u", s->config->boot.partition, names->selected);
	else if (s->config->boot.partition)
		report_add(buf, size, ", none of them is %s", s->config->boot.partition);
}

/* "disk.qcow2 (qcow2, 40 GiB, 2 partitions, 3.2 GiB allocated)" */
static void report_add_image(const struct supervisor *s, char *buf, size_t size)
{
	const char *base = strrchr(s->image ?: "", '/');
	char total[32], used[32];
	struct statx st;

	base = base ? base + 1 : s->config->image ?: "";
	report_add(buf, size, "%s", base);
	if (!s->mounted)
		return;
	report_add(buf, size, " (%s, %s", s->opened.format,
		   format_size(total, sizeof(total), s->opened.size));
	if (s->config->snapshot)
		report_add(buf, size, ", snapshot %s", s->config->snapshot);
	report_add_partitions(s, buf, size);
	/* What the kernel has in memory: a file server that does not answer is not asked */
	if (statx(s->image_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BLOCKS | STATX_TYPE,
		  &st) == 0 &&
	    S_ISREG(st.stx_mode))
		report_add(buf, size, ", %s allocated",
			   format_size(used, sizeof(used), st.stx_blocks * 512));
	report_add(buf, size, "%s)", s->config->read_only ? ", read-only" : "");
}

static void report_add_figures(const struct supervisor *s, char *buf, size_t size)
{
	char read[32], written[32];
	struct slots_sum sum;

	if (!s->mounted || !s->slots.head)
		return;
	slots_sum(&s->slots, &sum);
	report_add(buf, size, ", %llu reads (%s), %llu writes (%s)", (unsigned long long)sum.reads,
		   format_size(read, sizeof(read), sum.read_bytes), (unsigned long long)sum.writes,
		   format_size(written, sizeof(written), sum.write_bytes));
	if (sum.errors)
		report_add(buf, size, ", %llu errors", (unsigned long long)sum.errors);
}

void report_compose(const struct supervisor *s, char *buf, size_t size)
{
	char text[DIAG_MAX] = "";

	report_add_state(s, text, sizeof(text));
	report_add_image(s, text, sizeof(text));
	report_add_figures(s, text, sizeof(text));
	if (s->report.users[0] && !s->unmount.wanted)
		report_add(text, sizeof(text), "; used by %s", s->report.users);
	if (s->report.problem[0])
		report_add(text, sizeof(text), "; %s", s->report.problem);
	/* Names of files may hold anything, also what would be a line of its own */
	diag_quote(buf, size, text, strlen(text));
}

/* Behind a full queue the next look tries again. */
void report_refresh(struct supervisor *s)
{
	char status[sizeof(s->report.status)];

	if (s->report.notify.fd < 0)
		return;
	report_compose(s, status, sizeof(status));
	if (strcmp(status, s->report.status) == 0)
		return;
	if (notify_send(&s->report.notify, "STATUS=%s", status) < 0)
		return;
	memcpy(s->report.status, status, sizeof(status));
}

void report_problem(struct supervisor *s, const char *fmt, ...)
{
	char when[16] = "", text[sizeof(s->report.problem)];
	struct tm tm;
	time_t now = time(NULL);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (localtime_r(&now, &tm))
		strftime(when, sizeof(when), "%H:%M:%S", &tm);
	s->report.problem[0] = '\0';
	report_add(s->report.problem, sizeof(s->report.problem), "at %s: %s", when, text);
	report_refresh(s);
}

void report_waiting(struct supervisor *s, const char *why)
{
	uint64_t now = report_clock();
	char shown[DIAG_MAX];

	if (strcmp(why, s->report.why) == 0 && now - s->report.waited_us < REPORT_PERIOD_US)
		return;
	diag_quote(shown, sizeof(shown), why, strlen(why));
	if (strcmp(why, s->report.why) != 0)
		log_msg(LOG_NOTICE, "waiting: %s", shown);
	snprintf(s->report.why, sizeof(s->report.why), "%s", why);
	s->report.waited_us = now;
	notify_send(&s->report.notify, "EXTEND_TIMEOUT_USEC=%d\nSTATUS=Waiting: %s",
		    REPORT_EXTEND_US, shown);
}

void report_ready(struct supervisor *s)
{
	s->report.status[0] = '\0';
	report_compose(s, s->report.status, sizeof(s->report.status));
	notify_state(&s->report.notify, "READY=1\nSTATUS=%s", s->report.status);
}

void report_reloading(struct supervisor *s)
{
	s->report.status[0] = '\0';
	notify_state(&s->report.notify,
		     "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=Reloading the configuration",
		     (unsigned long long)report_clock());
}

void report_stopping(struct supervisor *s)
{
	report_compose(s, s->report.status, sizeof(s->report.status));
	notify_state(&s->report.notify, "STOPPING=1\nSTATUS=%s", s->report.status);
}

void report_failure(struct report *r, const struct diag *diag)
{
	char text[DIAG_MAX];

	diag_quote(text, sizeof(text), diag->text, strlen(diag->text));
	notify_state(&r->notify, "STATUS=%s\nERRNO=%d", text, -diag->error);
}

/* Did clients do anything since users were last looked for? */
static bool report_has_moved(struct supervisor *s)
{
	struct slots_sum sum;

	if (!s->mounted || !s->slots.head)
		return false;
	slots_sum(&s->slots, &sum);
	if (memcmp(&sum, &s->report.seen, sizeof(sum)) == 0)
		return false;
	s->report.seen = sum;
	return true;
}

static uint64_t report_requests(const struct supervisor *s)
{
	struct slots_sum sum;

	if (!s->mounted || !s->slots.head)
		return 0;
	slots_sum(&s->slots, &sum);
	return sum.reads + sum.writes + sum.flushes + sum.discards + sum.others;
}

/* More time for a start or a stop that gets on. */
static void report_extend(struct supervisor *s, uint64_t now)
{
	bool stopping = s->unmount.wanted || s->unmount.gone, users, moving;
	struct progress_sample sample;

	if (s->ready && !s->resumed && !stopping)
		return;
	if (stopping && s->report.stop_us == 0)
		s->report.stop_us = now;
	/* What the worker or the disk do beside, for whomever, brings the users' end no closer */
	users = stopping && !s->unmount.gone;
	progress_sample(users ? 0 : s->attend.pid, users ? -1 : s->image_fd, &sample);
	sample.requests = report_requests(s);
	moving = progress_note(&s->report.progress, &sample, now, REPORT_PATIENCE_US);
	s->report.stalled = !moving;
	/* The last worker of an earlier run: a new start would wait for it as well */
	if (s->life && now - s->report.start_us < REPORT_BUSY_US)
		moving = true;
	if (users && now - s->report.stop_us < REPORT_BUSY_US)
		moving = true;
	if (moving)
		notify_send(&s->report.notify, "EXTEND_TIMEOUT_USEC=%d", REPORT_EXTEND_US);
}

/* While a worker lives, or is being started, or nothing is to be served. A worker that hangs has
 * just been ended (examine.c): what remains for the service manager is a supervisor that forgot to
 * go on. */
static void report_feed_dog(struct supervisor *s, uint64_t now)
{
	bool idle = s->attend.phase == ATTEND_NONE && s->mounted;

	if (!idle)
		s->report.worked_us = now;
	if (s->report.notify.watchdog_us && now - s->report.worked_us < REPORT_IDLE_US)
		notify_send(&s->report.notify, "WATCHDOG=1");
}

static int report_on_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct supervisor *s = data;
	uint64_t now = report_now(s);

	examine_worker(s, now);
	report_feed_dog(s, now);
	if (s->report.notify.fd >= 0 && report_has_moved(s))
		busy_describe_devices(s->target.path, s->report.users, sizeof(s->report.users));
	report_extend(s, now);
	report_refresh(s);
	sd_event_source_set_time_relative(source, s->report.period_us);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void report_init(struct report *r)
{
	uint64_t dog;

	notify_init(&r->notify);
	dog = r->notify.watchdog_us / REPORT_DOG_DIVISOR;
	r->period_us = dog && dog < REPORT_PERIOD_US ? dog : REPORT_PERIOD_US;
}

int report_start(struct supervisor *s)
{
	pulse_set_limits(&s->pulse_limits, s->report.notify.watchdog_us);
	s->report.start_us = s->report.worked_us = report_clock();
	report_refresh(s);
	return supervisor_set_timer(s, &s->report.timer, s->report.period_us, report_on_timer);
}

void report_finish(struct supervisor *s)
{
	s->report.timer = sd_event_source_unref(s->report.timer);
	notify_done(&s->report.notify);
}
