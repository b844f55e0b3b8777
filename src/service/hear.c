/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a worker says, and what follows.
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
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mounts.h"
#include "service/journal.h"

enum {
	HEAR_TEXT_MAX = DIAG_MAX / 2, /* of a worker's sentence */
};

static int hear_on_open(struct supervisor *s, const struct channel_msg *msg)
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
static int hear_claim(struct supervisor *s, struct diag *diag)
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
static int hear_mount(struct supervisor *s, struct diag *diag)
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
static int hear_reopened(struct supervisor *s, const struct channel_msg *msg)
{
	bool same = strcmp(msg->opened.format, s->opened.format) == 0;

	if (!same && s->reload.phase == RELOAD_TRYING)
		return attend_accuse(s, "took the image for another format than before");
	s->opened.size = msg->opened.size;
	s->opened.read_only = msg->opened.read_only;
	return 0;
}

static int hear_on_opened(struct supervisor *s, const struct channel_msg *msg)
{
	struct channel_msg serve = {.type = CHANNEL_SERVE};
	int fds[CHANNEL_FDS_MAX];
	struct diag diag = {0};

	if (!s->mounted) {
		s->opened = msg->opened;
		diag_quote(s->opened.format, sizeof(s->opened.format), msg->opened.format,
			   strlen(msg->opened.format));
		if (hear_claim(s, &diag) < 0 || hear_mount(s, &diag) < 0) {
			if (s->mounted)
				supervisor_give_up(s, diag.error, diag.text);
			else
				supervisor_end(s, diag.error, "%s", diag.text);
			return diag.error;
		}
	} else if (hear_reopened(s, msg) < 0) {
		return -EPROTO;
	}
	serve.granted = s->session.granted;
	fds[0] = s->session.slots_fd;
	memcpy(fds + 1, s->session.thread_fds, s->session.n * sizeof(int));
	s->attend.phase = ATTEND_STARTING;
	return attend_send(s, &serve, fds, s->session.n + 1);
}

/* The first worker serves: the export exists, for us and for others. */
static void hear_announce(struct supervisor *s)
{
	struct diag diag = {0};

	log_msg(LOG_INFO, "%s (%s) is mounted on %s", s->image, s->opened.format, s->target.path);
	s->ready = true;
	s->options->ready(s->options->ready_data, 0, &diag);
	report_ready(s);
}

static int hear_on_serving(struct supervisor *s, const struct channel_msg *msg)
{
	s->attend.phase = ATTEND_SERVING;
	s->reopen_failures = 0;
	if (!s->ready)
		hear_announce(s);
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

static int hear_on_pong(struct supervisor *s, const struct channel_msg *msg)
{
	if (s->pulse.asked_us == 0)
		return attend_accuse(s, "spoke out of turn");
	s->pulse.asked_us = 0;
	s->opened.size = msg->opened.size; /* it may have grown */
	return 0;
}

static int hear_on_closing(struct supervisor *s, const struct channel_msg *msg)
{
	s->attend.phase = ATTEND_CLOSING;
	if (!session_is_alive(&s->session))
		resume_release(s);
	return 0;
}

/* Of a request that failed. */
static void hear_log_error(struct supervisor *s, const struct channel_msg *msg, const char *text)
{
	const struct journal_detail detail = {.error = msg->error,
					      .has_offset = msg->offset != UINT64_MAX,
					      .offset = msg->offset};

	journal_event(s, msg->error == -EUCLEAN ? JOURNAL_CORRUPT : JOURNAL_IO_ERROR, &detail, "%s",
		      text);
	report_problem(s, "%s", text);
}

static int hear_on_log(struct supervisor *s, const struct channel_msg *msg)
{
	char text[HEAR_TEXT_MAX], where[64] = "", held_text[64] = "", line[DIAG_MAX];
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
		hear_log_error(s, msg, line);
	else
		log_msg((int)msg->level, "%s: %s", s->image, line);
	return 0;
}

/* Its last word: the filter ends it now. Which call it was tells a mistake of ours from an attack.
 */
static int hear_on_forbidden(struct supervisor *s, const struct channel_msg *msg)
{
	_cleanup_free_ char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, msg->call);

	log_msg(LOG_ERR,
		"%s: the worker (pid %d) used the system call %s (%d), which its sandbox forbids",
		s->image, s->attend.pid, name ?: "without a name", msg->call);
	return 0;
}

/* DONE and FAILED: what it had to say; the consequences wait for its exit. */
static void hear_note_end(struct supervisor *s, const struct channel_msg *msg)
{
	char text[HEAR_TEXT_MAX];

	diag_quote(text, sizeof(text), msg->text, strlen(msg->text));
	diag_set(&s->attend.end, msg->error, "%s", text);
	s->attend.phase = ATTEND_OVER;
	attend_expect_exit(s);
}

static int hear_on_failed(struct supervisor *s, const struct channel_msg *msg)
{
	hear_note_end(s, msg);
	s->attend.failed = true;
	return 0;
}

static int hear_on_done(struct supervisor *s, const struct channel_msg *msg)
{
	hear_note_end(s, msg);
	s->attend.done = true;
	return 0;
}

static int hear_dispatch(struct supervisor *s, const struct channel_msg *msg)
{
	static const struct {
		uint32_t type;
		unsigned phases; /* in which it may be said */
		int (*handle)(struct supervisor *s, const struct channel_msg *msg);
	} rules[] = {
		{CHANNEL_OPEN, 1 << ATTEND_OPENING, hear_on_open},
		{CHANNEL_OPENED, 1 << ATTEND_OPENING, hear_on_opened},
		{CHANNEL_FAILED, 1 << ATTEND_OPENING | 1 << ATTEND_STARTING, hear_on_failed},
		{CHANNEL_SERVING, 1 << ATTEND_STARTING, hear_on_serving},
		{CHANNEL_LOG,
		 1 << ATTEND_OPENING | 1 << ATTEND_STARTING | 1 << ATTEND_SERVING |
			 1 << ATTEND_CLOSING,
		 hear_on_log},
		{CHANNEL_FORBIDDEN,
		 1 << ATTEND_OPENING | 1 << ATTEND_STARTING | 1 << ATTEND_SERVING |
			 1 << ATTEND_CLOSING,
		 hear_on_forbidden},
		{CHANNEL_PONG, 1 << ATTEND_SERVING, hear_on_pong},
		{CHANNEL_CLOSING, 1 << ATTEND_SERVING, hear_on_closing},
		{CHANNEL_DONE, 1 << ATTEND_SERVING | 1 << ATTEND_CLOSING, hear_on_done},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].type == msg->type && rules[i].phases & 1U << s->attend.phase)
			return rules[i].handle(s, msg);
	return attend_accuse(s, "spoke out of turn");
}

int hear_receive(struct supervisor *s)
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
	r = hear_dispatch(s, &msg);
	return r < 0 ? r : 1;
}
