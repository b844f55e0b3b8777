/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The worker, as its supervisor sees it.
 *
 * First start: spawn, START, (OPEN, FILE)*, OPENED; only now mount; SERVE, SERVING. A bad image
 * thus never comes near the mount table. Every later start is the same without the mounting.
 *
 * Nothing that a worker says is trusted: it may have been taken over by the image that it parses.
 * What is out of turn ends it, its text is made printable, and the files that it asks for are
 * judged as if the image's author had asked.
 */

#include "service/core.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
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
	ATTEND_TEXT_MAX = DIAG_MAX / 2,	    /* of a worker's sentence */
};

static void attend_restart(struct supervisor *s, uint64_t pause_us);
static int attend_on_restart(sd_event_source *source, uint64_t usec, void *data);

static uint64_t attend_now(struct supervisor *s)
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

static int attend_send(struct supervisor *s, const struct channel_msg *msg, const int *fds,
		       size_t n)
{
	int r = channel_send(s->attend.channel, msg, fds, n);

	/* Its end is gone: its death is on the way to us */
	if (r < 0 && r != -EPIPE)
		return attend_accuse(s, "does not read what it is told");
	return r;
}

static int attend_on_open(struct supervisor *s, const struct channel_msg *msg)
{
	struct channel_msg answer = {.type = CHANNEL_FILE};
	const struct files_request request = {.parent = msg->parent,
					      .name = msg->text,
					      .role = msg->role,
					      .writable = msg->writable};
	struct diag diag = {0};
	const char *path = NULL;
	int fd = -1;

	if (++s->attend.opens > CHANNEL_OPENS_MAX)
		return attend_accuse(s, "asked for too many files");
	answer.error = files_open(&s->files, &request, &fd, &path, &diag);
	snprintf(answer.text, sizeof(answer.text), "%s", answer.error < 0 ? diag.text : path);
	return attend_send(s, &answer, &fd, answer.error < 0 ? 0 : 1);
}

/* Enters us in the list of exports, before the mount: two that start at once must not both mount,
 * and who unmounts us must find whom to wait for. */
static int attend_claim(struct supervisor *s, struct diag *diag)
{
	const struct registry_entry entry = {
		.pid = getpid(),
		.image = s->image,
		.target = s->target.path,
		.format = s->opened.format,
		.size = s->opened.size,
		.snapshot = s->config->snapshot,
		.name = (char *)(uintptr_t)s->options->name,
		.read_only = s->config->read_only,
	};
	int r = registry_add(&entry, &s->own, diag);

	if (r >= 0 || r == -EBUSY)
		return r;
	log_msg(LOG_WARNING, "%s: will be missing in the list of exports: %s", s->target.path,
		diag->text);
	return 0;
}

/* The image is good: now, and only now, the mount table is touched. */
static int attend_mount(struct supervisor *s, struct diag *diag)
{
	const struct session_mount_options options = {
		.source = s->image,
		.target = s->target.path,
		.read_only = s->config->read_only,
		.allow_other = s->config->allow_other == CONFIG_YES ||
			       (s->config->allow_other == CONFIG_AUTO && geteuid() == 0),
	};
	_cleanup_(mounts_done) struct mounts mounts = {0};
	const struct mounts_entry *e;
	int r;

	r = session_open(&options, s->worker_config.threads, &s->session, diag);
	if (r < 0)
		return r;
	s->mounted = true;
	s->files.sealed = true;
	r = slots_map(s->session.slots_fd, &s->slots, diag);
	if (r < 0)
		return r;
	r = mounts_read(&mounts);
	if (r < 0)
		return diag_errno(diag, r, "/proc/self/mountinfo");
	e = mounts_at(&mounts, s->target.path);
	if (!e || strcmp(e->type, MOUNTS_OURS) != 0)
		return diag_set(diag, -EIO, "%s was unmounted at once by somebody else",
				s->target.path);
	s->dev = e->dev;
	s->source = strdup(e->source);
	if (!s->source)
		return diag_errno(diag, -ENOMEM, "%s", s->target.path);
	resume_save(s);
	return unmount_watch(s, diag);
}

/* What a new configuration must not do: show clients another disk. */
static int attend_reopened(struct supervisor *s, const struct channel_msg *msg)
{
	bool same = strcmp(msg->opened.format, s->opened.format) == 0;

	if (!same && s->reload.phase == RELOAD_TRYING)
		return attend_accuse(s, "took the image for another format than before");
	s->opened.size = msg->opened.size;
	s->opened.read_only = msg->opened.read_only;
	return 0;
}

static int attend_on_opened(struct supervisor *s, const struct channel_msg *msg)
{
	struct channel_msg serve = {.type = CHANNEL_SERVE};
	int fds[CHANNEL_FDS_MAX];
	struct diag diag = {0};

	if (!s->mounted) {
		s->opened = msg->opened;
		diag_quote(s->opened.format, sizeof(s->opened.format), msg->opened.format,
			   strlen(msg->opened.format));
		if (attend_claim(s, &diag) < 0 || attend_mount(s, &diag) < 0) {
			if (s->mounted)
				supervisor_give_up(s, diag.error, diag.text);
			else
				supervisor_end(s, diag.error, "%s", diag.text);
			return diag.error;
		}
	} else if (attend_reopened(s, msg) < 0) {
		return -EPROTO;
	}
	serve.granted = s->session.granted;
	fds[0] = s->session.slots_fd;
	memcpy(fds + 1, s->session.thread_fds, s->session.n * sizeof(int));
	s->attend.phase = ATTEND_STARTING;
	return attend_send(s, &serve, fds, s->session.n + 1);
}

/* The first worker serves: the export exists, for us and for others. */
static void attend_announce(struct supervisor *s)
{
	struct diag diag = {0};

	log_msg(LOG_INFO, "%s (%s) is mounted on %s", s->image, s->opened.format, s->target.path);
	s->ready = true;
	s->options->ready(s->options->ready_data, 0, &diag);
	report_ready(s);
}

static int attend_on_serving(struct supervisor *s, const struct channel_msg *msg)
{
	s->attend.phase = ATTEND_SERVING;
	s->reopen_failures = 0;
	if (!s->ready)
		attend_announce(s);
	else
		log_msg(LOG_NOTICE, "%s: the next worker (pid %d) serves", s->image, s->attend.pid);
	if (s->resumed && s->reload.phase == RELOAD_NONE)
		journal_event(s, JOURNAL_RESUMED, NULL,
			      "an earlier supervisor died; the export goes on where it was");
	if (s->resumed)
		reload_served(s);
	s->resumed = false;
	if (s->reload.phase == RELOAD_DRAINING) /* see reload_once_more() */
		attend_drain(s);
	reload_pending(s);
	return 0;
}

void attend_ping(struct supervisor *s)
{
	const struct channel_msg ping = {.type = CHANNEL_PING};

	attend_send(s, &ping, NULL, 0);
}

static int attend_on_pong(struct supervisor *s, const struct channel_msg *msg)
{
	if (s->pulse.asked_us == 0)
		return attend_accuse(s, "spoke out of turn");
	s->pulse.asked_us = 0;
	s->opened.size = msg->opened.size; /* it may have grown */
	return 0;
}

static int attend_on_closing(struct supervisor *s, const struct channel_msg *msg)
{
	s->attend.phase = ATTEND_CLOSING;
	return 0;
}

/* Of a request that failed. */
static void attend_log_error(struct supervisor *s, const struct channel_msg *msg, const char *text)
{
	const struct journal_detail detail = {.error = msg->error,
					      .has_offset = msg->offset != UINT64_MAX,
					      .offset = msg->offset};

	journal_event(s, msg->error == -EUCLEAN ? JOURNAL_CORRUPT : JOURNAL_IO_ERROR, &detail, "%s",
		      text);
	report_problem(s, "%s", text);
}

static int attend_on_log(struct supervisor *s, const struct channel_msg *msg)
{
	char text[ATTEND_TEXT_MAX], where[64] = "", held_text[64] = "", line[DIAG_MAX];
	unsigned held = 0;

	if (!rate_pass(&s->worker_log, attend_now(s), &held))
		return 0;
	diag_quote(text, sizeof(text), msg->text, strlen(msg->text));
	if (msg->offset != UINT64_MAX)
		snprintf(where, sizeof(where), " at byte %llu", (unsigned long long)msg->offset);
	if (held)
		snprintf(held_text, sizeof(held_text), " (%u messages were left out)", held);
	snprintf(line, sizeof(line), "%s%s%s%s%s", text, where, msg->error ? ": " : "",
		 msg->error ? strerrordesc_np(-msg->error) ?: "?" : "", held_text);
	if (msg->level <= LOG_ERR && msg->error)
		attend_log_error(s, msg, line);
	else
		log_msg((int)msg->level, "%s: %s", s->image, line);
	return 0;
}

static int attend_on_grace(sd_event_source *source, uint64_t usec, void *data)
{
	attend_accuse(data, "said its last word, did not end");
	return 0;
}

/* From here on only its exit is expected. */
static void attend_expect_exit(struct supervisor *s)
{
	if (!s->attend.grace)
		sd_event_add_time_relative(s->event, &s->attend.grace, CLOCK_MONOTONIC,
					   ATTEND_GRACE_US, 0, attend_on_grace, s);
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
	r = sd_event_add_time_relative(s->event, &s->attend.grace, CLOCK_MONOTONIC, ATTEND_DRAIN_US,
				       0, attend_on_drain_limit, s);
	if (r < 0)
		kill(s->attend.pid, SIGKILL);
}

/* DONE and FAILED: what it had to say; the consequences wait for its exit. */
static void attend_note_end(struct supervisor *s, const struct channel_msg *msg)
{
	char text[ATTEND_TEXT_MAX];

	diag_quote(text, sizeof(text), msg->text, strlen(msg->text));
	diag_set(&s->attend.end, msg->error, "%s", text);
	s->attend.phase = ATTEND_OVER;
	attend_expect_exit(s);
}

static int attend_on_failed(struct supervisor *s, const struct channel_msg *msg)
{
	attend_note_end(s, msg);
	s->attend.failed = true;
	return 0;
}

static int attend_on_done(struct supervisor *s, const struct channel_msg *msg)
{
	attend_note_end(s, msg);
	s->attend.done = true;
	return 0;
}

static int attend_dispatch(struct supervisor *s, const struct channel_msg *msg)
{
	static const struct {
		uint32_t type;
		unsigned phases; /* in which it may be said */
		int (*handle)(struct supervisor *s, const struct channel_msg *msg);
	} rules[] = {
		{CHANNEL_OPEN, 1 << ATTEND_OPENING, attend_on_open},
		{CHANNEL_OPENED, 1 << ATTEND_OPENING, attend_on_opened},
		{CHANNEL_FAILED, 1 << ATTEND_OPENING | 1 << ATTEND_STARTING, attend_on_failed},
		{CHANNEL_SERVING, 1 << ATTEND_STARTING, attend_on_serving},
		{CHANNEL_LOG,
		 1 << ATTEND_OPENING | 1 << ATTEND_STARTING | 1 << ATTEND_SERVING |
			 1 << ATTEND_CLOSING,
		 attend_on_log},
		{CHANNEL_PONG, 1 << ATTEND_SERVING, attend_on_pong},
		{CHANNEL_CLOSING, 1 << ATTEND_SERVING, attend_on_closing},
		{CHANNEL_DONE, 1 << ATTEND_SERVING | 1 << ATTEND_CLOSING, attend_on_done},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].type == msg->type && rules[i].phases & 1U << s->attend.phase)
			return rules[i].handle(s, msg);
	return attend_accuse(s, "spoke out of turn");
}

/* Reads what the worker has said. 1: more may follow; 0: nothing more for now; negative: no more
 * from this one. */
static int attend_receive(struct supervisor *s)
{
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	size_t n = 0;
	int r = channel_recv(s->attend.channel, &msg, fds, &n);

	if (r == -EAGAIN)
		return 0;
	if (r == 0)
		return -EPIPE;
	if (r < 0)
		return attend_accuse(s, "sent a malformed message");
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	if (n > 0)
		return attend_accuse(s, "sent descriptors");
	r = attend_dispatch(s, &msg);
	return r < 0 ? r : 1;
}

static int attend_on_channel(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct supervisor *s = data;
	int r = 1;

	for (int i = 0; r > 0 && i < ATTEND_DRAIN_MAX; i++)
		r = attend_receive(s);
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
	s->restart = sd_event_source_unref(s->restart);
	r = sd_event_add_time_relative(s->event, &s->restart, CLOCK_MONOTONIC, pause_us, 0,
				       attend_on_restart, s);
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
	while (s->attend.io && attend_receive(s) > 0)
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
	/* Who is in the middle of a request goes on with the partition that he has: what the disk
	 * says by now is for the next reload */
	if (s->mounted && s->reload.phase != RELOAD_TRYING)
		start.config.partitions = CHANNEL_PARTITIONS_KEEP;
	snprintf(start.text, sizeof(start.text), "%s", s->image);
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
