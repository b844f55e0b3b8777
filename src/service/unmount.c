/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The end of the mount. Told to stop, we try a plain unmount until nobody is in the way: never a
 * lazy one, which would let go of data that a file system on top of us has yet to write. When
 * the mount is gone (by us or by somebody else) the kernel ends the connection, the worker
 * notices, flushes and reports; nothing hurries it.
 */

#include "service/core.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "service/busy.h"
#include "service/sweep.h"
#include "base/mounts.h"

enum {
	UNMOUNT_QUICK_MAX = 10, /* attempts that follow fast: udev and the like go away soon */
	UNMOUNT_QUICK_US = 100 * 1000,
	UNMOUNT_SLOW_US = 1000 * 1000,
	UNMOUNT_REMIND_US = 10 * 1000 * 1000,
	/* Before anything is taken from its users at a shutdown: services that systemd has not put
	 * in order with a mount may still be ending there */
	UNMOUNT_PATIENCE_US = 10 * 1000 * 1000,
};

static int unmount_on_timer(sd_event_source *source, uint64_t usec, void *data);

static uint64_t unmount_now(const struct supervisor *s)
{
	uint64_t now = 0;

	sd_event_now(s->event, CLOCK_MONOTONIC, &now);
	return now;
}

static void unmount_set_timer(struct supervisor *s, uint64_t pause_us)
{
	int r = supervisor_set_timer(s, &s->unmount.timer, pause_us, unmount_on_timer);

	if (r < 0) /* the next signal or mount event tries again */
		log_msg(LOG_ERR, "%s: no timer: %s", s->target.path, strerrordesc_np(-r) ?: "?");
}

/* Looks into the mount table whether our file system is still there, at any place. */
static void unmount_check(struct supervisor *s)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	const struct mounts_entry *e;

	if (s->unmount.gone || mounts_read(&m) < 0)
		return;
	e = mounts_of(&m, s->dev, s->source);
	if (!e) {
		s->unmount.gone = true;
		log_msg(LOG_INFO, "%s: unmounted", s->target.path);
		report_stopping(s);
		unmount_set_timer(s, UNMOUNT_REMIND_US);
	} else if (s->unmount.wanted && s->unmount.taken && strcmp(e->point, s->target.path) != 0 &&
		   strcmp(e->point, s->unmount.busy) != 0) {
		snprintf(s->unmount.busy, sizeof(s->unmount.busy), "%s", e->point);
		log_msg(LOG_WARNING, "%s: waiting, it is also mounted on %s", s->target.path,
			e->point);
	}
}

/* Says who is in the way, once for each answer. */
static void unmount_report_busy(struct supervisor *s)
{
	char who[sizeof(s->unmount.busy)];
	ssize_t n = read(s->unmount.answer, who, sizeof(who) - 1);

	who[n > 0 ? n : 0] = '\0';
	if (s->unmount.busy[0] && strcmp(who, s->unmount.busy) == 0)
		return;
	snprintf(s->unmount.busy, sizeof(s->unmount.busy), "%s", who);
	log_msg(LOG_WARNING, "%s: waiting to unmount, in use by %s", s->target.path,
		who[0] ? who : "somebody who cannot be seen from here");
	report_refresh(s);
}

/* Forgets the attempt that was under way. */
static void unmount_clear(struct supervisor *s)
{
	s->unmount.child_source = sd_event_source_unref(s->unmount.child_source);
	s->unmount.child = 0;
	closep(&s->unmount.answer);
	s->unmount.answer = -1;
}

static int unmount_on_child(sd_event_source *source, const siginfo_t *end, void *data)
{
	struct supervisor *s = data;
	int r = end->si_code == CLD_EXITED ? -end->si_status : -EINTR;

	s->unmount.taken = s->unmount.taken || r == 0;
	unmount_check(s);
	if (!s->unmount.gone && r == -EBUSY && s->unmount.attempts >= UNMOUNT_QUICK_MAX)
		unmount_report_busy(s);
	else if (!s->unmount.gone && r < 0 && r != -EBUSY && r != -EINVAL)
		log_msg(LOG_ERR, "%s: could not be unmounted: %s", s->target.path,
			strerrordesc_np(-r) ?: "?");
	unmount_clear(s);
	if (!s->unmount.gone)
		unmount_set_timer(s, s->unmount.attempts < UNMOUNT_QUICK_MAX ? UNMOUNT_QUICK_US
									     : UNMOUNT_SLOW_US);
	return 0;
}

/*
 * Where our mount stands: at the target, or elsewhere once a directory above it was renamed. At
 * other places it has been put by somebody else, who may see to that himself.
 */
static const char *unmount_point(const struct supervisor *s, const struct mounts *m)
{
	const struct mounts_entry *at = mounts_at(m, s->target.path), *e;

	if (s->unmount.taken || (at && at->dev == s->dev))
		return s->target.path;
	e = mounts_of(m, s->dev, s->source);
	return e ? e->point : s->target.path;
}

static void __attribute__((noreturn))
unmount_child(const struct supervisor *s, int answer, bool last_call)
{
	const char *point = s->target.path;
	char who[sizeof(s->unmount.busy)];
	struct mounts m = {0};
	int r;

	if (mounts_read(&m) == 0)
		point = unmount_point(s, &m);
	if (last_call)
		sweep(point);
	r = session_unmount(point);
	if (r == -EBUSY && s->unmount.attempts >= UNMOUNT_QUICK_MAX &&
	    busy_describe(point, who, sizeof(who)) > 0)
		(void)io_write(answer, who, strlen(who));
	_exit(-r);
}

static int unmount_start_child(struct supervisor *s)
{
	bool last_call = unmount_now(s) - s->unmount.wanted_us >= UNMOUNT_PATIENCE_US;
	int answer[2];

	if (pipe2(answer, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	s->unmount.child = supervisor_fork(s);
	if (s->unmount.child == 0)
		unmount_child(s, answer[1], last_call);
	s->unmount.answer = answer[0];
	close(answer[1]);
	if (s->unmount.child < 0)
		return -errno;
	return sd_event_add_child(s->event, &s->unmount.child_source, s->unmount.child, WEXITED,
				  unmount_on_child, s);
}

/*
 * One attempt, in a child: unmounting may wait for a worker, which may wait for us. So may looking
 * who is in the way: the memory map of a process is locked while it waits for a page of ours.
 */
static void unmount_try(struct supervisor *s)
{
	int r;

	if (s->unmount.child > 0 || s->unmount.gone)
		return;
	s->unmount.attempts++;
	r = unmount_start_child(s);
	if (r < 0) {
		log_msg(LOG_ERR, "%s: could not be unmounted: %s", s->target.path,
			strerrordesc_np(-r) ?: "?");
		if (s->unmount.child > 0)
			waitpid(s->unmount.child, NULL, 0);
		unmount_clear(s);
		unmount_set_timer(s, UNMOUNT_SLOW_US);
	}
}

static int unmount_on_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct supervisor *s = data;

	if (!s->unmount.gone) {
		unmount_try(s);
		return 0;
	}
	if (s->attend.phase != ATTEND_CLOSING)
		log_msg(LOG_NOTICE, "%s: unmounted, but another mount namespace holds the mount",
			s->target.path);
	else if (s->report.stalled)
		log_msg(LOG_WARNING,
			"%s: unmounted; what is left to be written to %s is not: its storage does "
			"not answer",
			s->target.path, s->image);
	else
		log_msg(LOG_NOTICE, "%s: unmounted; still writing %s to stable storage",
			s->target.path, s->image);
	unmount_set_timer(s, UNMOUNT_REMIND_US);
	return 0;
}

void unmount_request(struct supervisor *s)
{
	if (!s->unmount.wanted)
		s->unmount.wanted_us = unmount_now(s);
	s->unmount.wanted = true;
	s->unmount.attempts = 0;
	s->unmount.busy[0] = '\0';
	unmount_try(s);
}

/* Something was mounted or unmounted somewhere. */
static int unmount_on_mounts(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct supervisor *s = data;

	unmount_check(s);
	if (s->unmount.wanted)
		unmount_try(s);
	return 0;
}

int unmount_watch(struct supervisor *s, struct diag *diag)
{
	int r;

	s->unmount.watch_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	r = s->unmount.watch_fd < 0 ? -errno : 0;
	if (r >= 0)
		r = sd_event_add_io(s->event, &s->unmount.watch, s->unmount.watch_fd, EPOLLPRI,
				    unmount_on_mounts, s);
	return r < 0 ? diag_errno(diag, r, "watching the mount table") : 0;
}

void unmount_finish(struct supervisor *s)
{
	struct unmount *u = &s->unmount;

	/* It may be looking at a process that has long waited for the disk, and will wait longer */
	if (u->child > 0 && kill(u->child, SIGKILL) == 0)
		waitpid(u->child, NULL, 0);
	unmount_clear(s);
	u->timer = sd_event_source_unref(u->timer);
	u->watch = sd_event_source_unref(u->watch);
	closep(&u->watch_fd);
	u->watch_fd = -1;
}
