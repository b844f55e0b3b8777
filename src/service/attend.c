/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The worker's life, as its supervisor sees it: its start, its end, and what follows from that. */

#include "service/core.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mounts.h"
#include "service/journal.h"
#include "service/program.h"

enum {
	ATTEND_DRAIN_MAX = 64,		    /* messages read in one turn of the loop */
	ATTEND_REOPEN_MAX = 6,		    /* failures to open the image again, before giving up */
	ATTEND_REOPEN_US = 100 * 1000,	    /* pause after the first; doubles */
	ATTEND_YOUNG_US = 100 * 1000,	    /* workers killed younger than this, */
	ATTEND_YOUNG_MAX = 3,		    /* and more of them in a row: pause as long */
	ATTEND_GRACE_US = 10 * 1000 * 1000, /* from its last word to its exit */
	ATTEND_DRAIN_US = 10 * 1000 * 1000, /* from STOP to its exit: clients wait meanwhile */
};

static void attend_restart(struct supervisor *s, uint64_t pause_us);
static int attend_on_restart(sd_event_source *source, uint64_t usec, void *data);

uint64_t attend_now(struct supervisor *s)
{
	uint64_t now = 0;

	sd_event_now(s->event, CLOCK_MONOTONIC, &now);
	return now;
}

int attend_accuse(struct supervisor *s, const char *of)
{
	if (!s->attend.accused)
		s->attend.accused = of;
	kill(s->attend.pid, SIGKILL);
	return -EPROTO;
}

int attend_send(struct supervisor *s, const struct channel_msg *msg, const int *fds, size_t n)
{
	int r = channel_send(s->attend.channel, msg, fds, n);

	/* Its end is gone: its death is on the way to us */
	if (r < 0 && r != -EPIPE)
		return attend_accuse(s, "does not read what it is told");
	return r;
}

void attend_ping(struct supervisor *s)
{
	const struct channel_msg ping = {.type = CHANNEL_PING};

	attend_send(s, &ping, NULL, 0);
}

static int attend_on_grace(sd_event_source *source, uint64_t usec, void *data)
{
	attend_accuse(data, "said its last word, did not end");
	return 0;
}

void attend_expect_exit(struct supervisor *s)
{
	if (!s->attend.grace)
		supervisor_set_timer(s, &s->attend.grace, ATTEND_GRACE_US, attend_on_grace);
}

static int attend_on_drain_limit(sd_event_source *source, uint64_t usec, void *data)
{
	struct supervisor *s = data;

	log_msg(LOG_WARNING, "%s: the worker (pid %d) does not come to its end and is killed",
		s->image, s->attend.pid);
	kill(s->attend.pid, SIGKILL);
	return 0;
}

void attend_drain(struct supervisor *s)
{
	const struct channel_msg stop = {.type = CHANNEL_STOP};
	int r;

	if (s->attend.pid <= 0) {
		s->restart = sd_event_source_unref(s->restart);
		reload_execute(s);
		attend_restart(s, 0);
		return;
	}
	if (s->attend.phase == ATTEND_SERVING)
		attend_send(s, &stop, NULL, 0);
	else /* it has nothing in hand that the next one would not take up */
		kill(s->attend.pid, SIGKILL);
	r = supervisor_set_timer(s, &s->attend.grace, ATTEND_DRAIN_US, attend_on_drain_limit);
	if (r < 0)
		kill(s->attend.pid, SIGKILL);
}

static int attend_on_channel(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct supervisor *s = data;
	int r = 1;

	for (int i = 0; r > 0 && i < ATTEND_DRAIN_MAX; i++)
		r = hear_receive(s);
	if (r < 0 && s->attend.io) { /* the rest is told by its exit */
		s->attend.io = sd_event_source_unref(s->attend.io);
		attend_expect_exit(s);
	}
	return 0;
}

/* Forgets the worker of now, which is no more. */
static void attend_clear(struct supervisor *s)
{
	sd_event_source_unref(s->attend.io);
	sd_event_source_unref(s->attend.child);
	sd_event_source_unref(s->attend.grace);
	closep(&s->attend.channel);
	pulse_reset(&s->pulse);
	s->attend = (struct attend){.channel = -1};
}

/* A new worker after a pause (0: at once). */
static void attend_restart(struct supervisor *s, uint64_t pause_us)
{
	struct diag diag = {0};
	int r;

	if (pause_us == 0 && attend_start(s, &diag) >= 0)
		return;
	if (diag.error < 0) {
		log_msg(LOG_ERR, "%s: %s", s->image, diag.text);
		pause_us = (uint64_t)ATTEND_REOPEN_US << s->reopen_failures;
		if (++s->reopen_failures > ATTEND_REOPEN_MAX) {
			supervisor_give_up(s, diag.error, diag.text);
			return;
		}
	}
	r = supervisor_set_timer(s, &s->restart, pause_us, attend_on_restart);
	if (r < 0)
		supervisor_give_up(s, r, "no timer for a new worker");
}

static int attend_on_restart(sd_event_source *source, uint64_t usec, void *data)
{
	attend_restart(data, 0);
	return 0;
}

/* After the death of a worker that does not end the run. */
static void attend_next(struct supervisor *s, uint64_t pause_us)
{
	resume_save(s);
	if (s->reload.phase == RELOAD_DRAINING)
		reload_execute(s);
	attend_restart(s, pause_us);
}

/* With the configuration from before a reload. */
static void attend_again(struct supervisor *s)
{
	struct diag diag = {0};

	if (fit_all(s, &diag) < 0)
		supervisor_give_up(s, diag.error, diag.text);
	else
		attend_next(s, 0);
}

/* Answers the request in slot i with EIO and takes it out of the successor's sight. */
static void attend_refuse_poison(struct supervisor *s, unsigned i)
{
	uint64_t unique = slots_unique(&s->slots, i);

	journal_event(s, JOURNAL_POISON, NULL,
		      "poison request: worker after worker died with request %llu (opcode %u) in "
		      "hand; it is answered with an I/O error",
		      (unsigned long long)unique, slots_opcode(&s->slots, i));
	report_problem(s, "a request that no worker survives was answered with an I/O error");
	session_reply_error(s->session.thread_fds[i], unique, EIO);
	slots_clear(&s->slots, i);
}

/* The requests that were handed out and not executed; returns how many. */
static unsigned attend_held(struct supervisor *s, uint64_t held[static SLOTS_MAX])
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->session.n; i++) {
		bool open = atomic_load(&slots_at(&s->slots, i)->state) == SLOT_OPEN;

		held[i] = open ? slots_unique(&s->slots, i) : 0;
		n += held[i] != 0;
	}
	return n;
}

/* The only slot that the worker was at, or their number. Whatever a worker wrote there, it can only
 * accuse one of the requests that it had in hand. */
static unsigned attend_suspect(struct supervisor *s)
{
	uint32_t replaying = atomic_exchange(&s->slots.head->replaying, 0);

	return replaying == 0 || replaying > s->session.n ? s->session.n : replaying - 1;
}

static void attend_crashed(struct supervisor *s, const struct attend *a, const siginfo_t *end)
{
	bool killed = end->si_code != CLD_EXITED && end->si_status == SIGKILL && !a->accused;
	uint64_t held[SLOTS_MAX] = {0}, now = attend_now(s);
	struct crashes_verdict verdict;
	char how[128];
	unsigned n;

	if (a->accused)
		snprintf(how, sizeof(how), "%s and was ended", a->accused);
	else
		program_describe_end(end, how, sizeof(how));
	if (!s->mounted) {
		supervisor_end(s, -EIO, "%s: the worker %s while it opened the image", s->image,
			       how);
		return;
	}
	n = attend_held(s, held);
	journal_event(s, JOURNAL_WORKER_DIED, NULL,
		      "the worker (pid %d) %s with %u requests in hand", a->pid, how, n);
	report_problem(s, "the worker %s and was replaced", how);
	verdict = crashes_note(&s->crashes, now, killed, held, s->session.n, attend_suspect(s));
	s->careful = verdict.careful;
	for (unsigned i = 0; i < s->session.n; i++)
		if (verdict.poison & UINT64_C(1) << i)
			attend_refuse_poison(s, i);
	s->young_kills = killed && now - a->started_us < ATTEND_YOUNG_US ? s->young_kills + 1 : 0;
	if (s->reload.phase == RELOAD_TRYING && !killed && reload_revert(s, how))
		attend_again(s);
	else if (verdict.give_up)
		supervisor_give_up(s, -EIO, "too many workers died in a short time");
	else
		attend_next(s, s->young_kills > ATTEND_YOUNG_MAX ? ATTEND_YOUNG_US : 0);
}

/* A worker that could not open the image again: it may be for want of memory, or a network file
 * system that is away for a while. */
static void attend_reopen_failed(struct supervisor *s, const struct attend *a)
{
	uint64_t pause_us = (uint64_t)ATTEND_REOPEN_US << s->reopen_failures;

	if (!s->mounted) {
		supervisor_end(s, a->end.error ?: -EIO, "%s", a->end.text);
	} else if (reload_revert(s, a->end.text)) {
		attend_again(s);
	} else if (++s->reopen_failures > ATTEND_REOPEN_MAX) {
		supervisor_give_up(s, a->end.error ?: -EIO, a->end.text);
	} else {
		log_msg(LOG_ERR, "%s: a new worker failed, trying again: %s", s->image,
			a->end.text);
		attend_restart(s, pause_us);
	}
}

/* The connection has ended, the image is closed. A mount that is still there has nobody behind it:
 * its connection was aborted. */
static void attend_finished(struct supervisor *s, const struct attend *a)
{
	_cleanup_(mounts_done) struct mounts mounts = {0};

	bool aborted = mounts_read(&mounts) >= 0 && mounts_of(&mounts, s->dev, s->source);

	if (aborted && a->end.error == 0)
		supervisor_give_up(s, -ECONNABORTED, "its connection to the kernel was aborted");
	else if (aborted)
		supervisor_give_up(s, a->end.error, a->end.text);
	else if (a->end.error < 0)
		supervisor_end(s, a->end.error, "%s: %s", s->image, a->end.text);
	else
		supervisor_end(s, 0, "%s: done", s->image);
}

/* It has ended because it was told to. */
static void attend_drained(struct supervisor *s, const struct attend *a)
{
	if (a->end.error < 0)
		log_msg(LOG_ERR, "%s: %s", s->image, a->end.text);
	attend_next(s, 0);
}

static int attend_on_death(sd_event_source *source, const siginfo_t *end, void *data)
{
	struct supervisor *s = data;
	struct attend last;

	/* What it said before it died counts */
	while (s->attend.io && hear_receive(s) > 0)
		;
	last = s->attend;
	attend_clear(s);
	if (s->outcome.text[0]) /* the run is over already */
		return 0;
	if (last.done && s->reload.phase == RELOAD_DRAINING && session_is_alive(&s->session))
		attend_drained(s, &last);
	else if (last.done)
		attend_finished(s, &last);
	else if (last.failed)
		attend_reopen_failed(s, &last);
	else
		attend_crashed(s, &last, end);
	return 0;
}

int attend_start(struct supervisor *s, struct diag *diag)
{
	struct channel_msg start = {.type = CHANNEL_START, .config = s->worker_config};
	int r = program_spawn(s->program_fd, s->life_write, &s->attend.channel, &s->attend.pid,
			      diag);

	if (r < 0)
		return r;
	s->attend.phase = ATTEND_OPENING;
	s->attend.started_us = attend_now(s);
	r = sd_event_add_child(s->event, &s->attend.child, s->attend.pid, WEXITED, attend_on_death,
			       s);
	if (r >= 0)
		r = sd_event_add_io(s->event, &s->attend.io, s->attend.channel, EPOLLIN,
				    attend_on_channel, s);
	if (r < 0) {
		attend_finish(s);
		return diag_errno(diag, r, "watching the worker");
	}
	start.config.careful = s->careful;
	start.config.again = s->mounted;
	/* Who is in the middle of a request goes on with the partition that he has: what the disk
	 * says by now is for the next reload */
	if (s->mounted && s->reload.phase != RELOAD_TRYING)
		start.config.partitions = CHANNEL_PARTITIONS_KEEP;
	snprintf(start.text, sizeof(start.text), "%s", s->image);
	snprintf(start.parent, sizeof(start.parent), "%s", s->options->settings ?: "");
	attend_send(s, &start, &s->image_fd, 1);
	return 0;
}

void attend_finish(struct supervisor *s)
{
	s->restart = sd_event_source_unref(s->restart);
	if (s->attend.pid > 0) {
		kill(s->attend.pid, SIGKILL);
		s->attend.child = sd_event_source_unref(s->attend.child);
		waitpid(s->attend.pid, NULL, 0);
	}
	attend_clear(s);
}
