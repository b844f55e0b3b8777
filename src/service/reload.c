/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * SIGHUP: the same mount with another configuration and another program, and no client notices more
 * than a pause.
 *
 *   preparing  A child runs the installed program, which judges the configuration (prepare.h). A
 *              program that does not work, or a configuration that does not fit, ends it here.
 *   flushing   Another child brings the image to stable storage, so that the worker will have
 *              little to flush when it ends: that is time for which clients wait.
 *   draining   The worker is told to finish what it has in hand and to end. One that takes too long
 *              is killed, and the next one executes again what it left. Where the next program lays
 *              out request memory in another way, that is one more of ours, which is then drained.
 *   execve     Descriptors and state go over (resume.c). The process, its pid, and what systemd
 *              thinks of it stay.
 *   trying     The new supervisor makes files and threads fit (fit.c) and starts a worker. Only
 * when that one serves is the new configuration in force; otherwise the old one is again.
 *
 * Up to execve nothing has been given up: each failure leads back to a worker of the old kind.
 */

#include "service/core.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "service/program.h"
#include "service/state.h"
#include "session/slots.h"

enum {
	RELOAD_PREPARE_US = 30 * 1000 * 1000, /* NSS and network file systems may be slow */
	RELOAD_FLUSH_US = 60 * 1000 * 1000,
	RELOAD_DRAINS_MAX = 3, /* workers that do not come to an orderly end */
	RELOAD_EXIT_EXEC = 127,
};

void reload_pending(struct supervisor *s)
{
	if (!s->reload.again || s->reload.phase != RELOAD_NONE)
		return;
	s->reload.again = false;
	reload_request(s);
}

static void reload_clear(struct supervisor *s)
{
	struct reload *r = &s->reload;

	r->child_source = sd_event_source_unref(r->child_source);
	r->timer = sd_event_source_unref(r->timer);
	if (r->child > 0) {
		kill(r->child, SIGKILL);
		waitpid(r->child, NULL, 0);
	}
	r->child = 0;
	closep(&r->said_fd);
	closep(&r->offer_fd);
	r->said_fd = r->offer_fd = -1;
	if (r->phase == RELOAD_TRYING)
		config_done(&r->before);
	r->phase = RELOAD_NONE;
}

/* Nothing has changed, and why. */
static void reload_refused(struct supervisor *s, const char *why)
{
	log_msg(LOG_ERR, "%s: reload failed, everything stays as it was: %s", s->target.path, why);
	reload_clear(s);
	report_problem(s, "reload failed, everything stays as it was: %s", why);
	report_ready(s);
	reload_pending(s);
}

static int reload_on_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct supervisor *s = data;

	kill(s->reload.child, SIGKILL); /* its end is what counts */
	return 0;
}

/* Watches the child of this phase. */
static int reload_watch(struct supervisor *s, uint64_t limit_us, sd_event_child_handler_t handler)
{
	int r = sd_event_add_child(s->event, &s->reload.child_source, s->reload.child, WEXITED,
				   handler, s);

	if (r >= 0)
		r = supervisor_set_timer(s, &s->reload.timer, limit_us, reload_on_timer);
	return r;
}

/* The child is gone: its sources too. */
static void reload_child_done(struct supervisor *s)
{
	s->reload.child = 0;
	s->reload.child_source = sd_event_source_unref(s->reload.child_source);
	s->reload.timer = sd_event_source_unref(s->reload.timer);
}

/* Flushing. */

/*
 * The kernel tells of bytes that it could not write back once to each open file description (Linux
 * 4.13). Ours is the worker's, and whatever it was told here the worker would never learn. So this
 * goes through a new one.
 */
static void reload_flush_file(int fd)
{
	_cleanup_close_ int own = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDONLY | O_CLOEXEC);
	if (own >= 0)
		fdatasync(own);
}

static void __attribute__((noreturn)) reload_flush_child(const struct supervisor *s)
{
	reload_flush_file(s->image_fd);
	for (unsigned i = 0; i < s->files.n; i++)
		if (s->files.entries[i].writable)
			reload_flush_file(s->files.entries[i].fd);
	_exit(0);
}

static void reload_drain(struct supervisor *s)
{
	s->reload.phase = RELOAD_DRAINING;
	s->reload.tries = 0;
	attend_drain(s);
}

/* What it could not flush the worker will have to, and say so. */
static int reload_on_flushed(sd_event_source *source, const siginfo_t *end, void *data)
{
	struct supervisor *s = data;

	reload_child_done(s);
	if (s->unmount.wanted || s->unmount.gone)
		reload_refused(s, "it is being stopped");
	else
		reload_drain(s);
	return 0;
}

static void reload_flush(struct supervisor *s)
{
	s->reload.phase = RELOAD_FLUSHING;
	s->reload.child = s->config->read_only ? 0 : supervisor_fork(s);
	if (s->reload.child == 0 && !s->config->read_only)
		reload_flush_child(s);
	if (s->reload.child <= 0) /* read-only, or no process to be had: the worker flushes */
		reload_drain(s);
	else if (reload_watch(s, RELOAD_FLUSH_US, reload_on_flushed) < 0)
		reload_refused(s, "no watch on the flushing process");
}

/* Preparing. */

/* "<3>fuseimg: TEXT\n..." -> "TEXT" */
static void reload_said(struct supervisor *s, char *buf, size_t size)
{
	char text[DIAG_MAX], *line = text;
	ssize_t n = io_pread(s->reload.said_fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	if (line[0] == '<' && line[1] && line[2] == '>')
		line += 3;
	if (strncmp(line, "fuseimg: ", strlen("fuseimg: ")) == 0)
		line += strlen("fuseimg: ");
	diag_quote(buf, size, line, strcspn(line, "\n"));
}

static int reload_on_prepared(sd_event_source *source, const siginfo_t *end, void *data)
{
	struct supervisor *s = data;
	char said[DIAG_MAX / 2], how[128], why[DIAG_MAX];

	reload_child_done(s);
	if (s->unmount.wanted || s->unmount.gone) {
		reload_refused(s, "it is being stopped");
		return 0;
	}
	if (end->si_code == CLD_EXITED && end->si_status == 0) {
		reload_flush(s);
		return 0;
	}
	reload_said(s, said, sizeof(said));
	if (said[0])
		snprintf(why, sizeof(why), "%s", said);
	else
		snprintf(why, sizeof(why), "%s %s", s->program,
			 program_describe_end(end, how, sizeof(how)));
	reload_refused(s, why);
	return 0;
}

static void __attribute__((noreturn)) reload_prepare_child(const struct supervisor *s)
{
	struct handover list = {};
	sigset_t none;

	handover_add(&list, s->state_fd, "state");
	handover_add(&list, s->image_fd, "image");
	handover_add(&list, s->reload.offer_fd, "offer");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(s->reload.said_fd, STDOUT_FILENO) >= 0 &&
	    dup2(s->reload.said_fd, STDERR_FILENO) >= 0)
		handover_exec(&list, s->program, s->options->argv);
	_exit(RELOAD_EXIT_EXEC);
}

static int reload_prepare(struct supervisor *s)
{
	struct reload *r = &s->reload;

	r->phase = RELOAD_PREPARING;
	r->said_fd = memfd_create("fuseimg-said", MFD_CLOEXEC);
	r->offer_fd = state_create();
	if (r->said_fd < 0 || r->offer_fd < 0)
		return -ENOMEM;
	r->child = fork();
	if (r->child == 0)
		reload_prepare_child(s);
	if (r->child < 0) {
		r->child = 0;
		return -EAGAIN;
	}
	return reload_watch(s, RELOAD_PREPARE_US, reload_on_prepared);
}

void reload_request(struct supervisor *s)
{
	int r;

	if (!s->options->argv) {
		log_msg(LOG_NOTICE, "%s: this export cannot be reloaded", s->target.path);
		return;
	}
	if (s->unmount.wanted || s->unmount.gone) {
		log_msg(LOG_NOTICE, "%s: no reload, it is being stopped", s->target.path);
		return;
	}
	if (!s->ready || s->reload.phase != RELOAD_NONE || s->life) {
		s->reload.again = true;
		return;
	}
	log_msg(LOG_INFO, "%s: reloading", s->target.path);
	report_reloading(s);
	resume_save(s);
	r = s->state_fd < 0 ? -ENODATA : reload_prepare(s);
	if (r < 0)
		reload_refused(s, strerrordesc_np(-r) ?: "?");
}

/* From one program to the next. */

/* Whether the next program can read the slots as they are. What it offered and we cannot read is
 * surely from another version. */
static bool reload_same_slots(const struct supervisor *s)
{
	_cleanup_(state_done) struct state offer = {};

	return state_read(s->reload.offer_fd, &offer, NULL) == 0 &&
	       offer.slots_version == slots_version;
}

/* A worker was killed, or died, with requests in hand that only one of its kind can take up. */
static void reload_once_more(struct supervisor *s)
{
	if (++s->reload.tries < RELOAD_DRAINS_MAX)
		log_msg(LOG_NOTICE, "%s: another worker finishes what the last one left",
			s->target.path);
	else
		reload_refused(s, "the installed fuseimg keeps requests in another way, and worker "
				  "after worker dies with some in hand");
}

void reload_execute(struct supervisor *s)
{
	bool idle = slots_idle(&s->slots);
	struct handover list;
	int r;

	if (s->unmount.wanted) { /* the next program would not know */
		reload_refused(s, "it is being stopped");
		return;
	}
	if (!idle && !reload_same_slots(s)) {
		reload_once_more(s);
		return;
	}
	if (idle)
		resume_save_carried(s);
	else
		resume_save(s);
	resume_list(s, &list);
	handover_add(&list, s->reload.offer_fd, "offer");
	r = handover_exec(&list, s->program, s->options->argv);
	if (r == -ENOENT || r == -EACCES) /* it was there a moment ago */
		r = handover_exec(&list, "/proc/self/exe", s->options->argv);
	resume_save(s);
	reload_refused(s, strerrordesc_np(-r) ?: "execve");
}

void reload_try(struct supervisor *s, int offer_fd)
{
	_cleanup_(state_done) struct state offer = {};
	struct worker_config before;
	struct diag diag = {0};
	int r = state_read(offer_fd, &offer, &diag);

	close(offer_fd);
	if (r < 0) {
		log_msg(LOG_ERR, "%s: the old configuration stays: %s", s->target.path, diag.text);
		return;
	}
	supervisor_fill_worker_config(s);
	before = s->worker_config;
	s->reload.phase = RELOAD_TRYING;
	s->reload.before = s->own_config;
	s->own_config = offer.config;
	offer.config = (struct config){};
	supervisor_fill_worker_config(s);
	/* A mode or owner that the configuration changes replaces what clients have set */
	slots_reset_attr(&s->slots, before.mode != s->worker_config.mode,
			 before.uid != s->worker_config.uid, before.gid != s->worker_config.gid);
}

bool reload_revert(struct supervisor *s, const char *why)
{
	if (s->reload.phase != RELOAD_TRYING)
		return false;
	log_msg(LOG_ERR, "%s: reload failed, the old configuration stays in force: %s",
		s->target.path, why);
	report_problem(s, "reload failed, the old configuration stays in force: %s", why);
	config_done(&s->own_config);
	s->own_config = s->reload.before;
	s->reload.before = (struct config){};
	reload_clear(s);
	return true;
}

void reload_served(struct supervisor *s)
{
	const struct registry_entry entry = {
		.pid = getpid(), .size = s->opened.size, .read_only = s->config->read_only};

	if (s->reload.phase == RELOAD_TRYING) {
		log_msg(LOG_NOTICE, "%s: reloaded", s->target.path);
		reload_clear(s);
	}
	registry_refresh(s->own, &entry);
	resume_save(s);
	/* The image may have another size than before */
	for (uint64_t node = 1; node <= SLOTS_NODES_MAX; node++)
		session_invalidate(&s->session, node);
	report_ready(s);
	fit_mount(s);
}

void reload_finish(struct supervisor *s)
{
	reload_clear(s);
}
