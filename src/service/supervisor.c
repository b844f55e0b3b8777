/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/supervisor.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/lock.h"
#include "base/log.h"
#include "service/core.h"
#include "service/prepare.h"
#include "service/journal.h"
#include "service/program.h"

enum {
	SUPERVISOR_THREADS_MIN = 4,
	SUPERVISOR_THREADS_MAX = 16,
	SUPERVISOR_TIMER_EXACT = 8, /* timers come late by no more than this part of a pause */
};

void supervisor_end(struct supervisor *s, int error, const char *fmt, ...)
{
	char text[DIAG_MAX];
	va_list ap;

	if (s->outcome.text[0])
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	diag_set(&s->outcome, error, "%s", text);
	sd_event_exit(s->event, 0);
}

/* Every request that a worker had in hand gets an answer. */
static void supervisor_refuse_held(struct supervisor *s)
{
	for (unsigned i = 0; i < s->session.n; i++) {
		uint64_t unique = slots_unique(&s->slots, i);

		if (unique)
			session_reply_error(s->session.thread_fds[i], unique, EIO);
	}
}

void supervisor_give_up(struct supervisor *s, int error, const char *why)
{
	bool cleaned = false, detached = false;
	struct diag diag = {0};

	attend_finish(s);
	supervisor_refuse_held(s);
	resume_forget(s);
	/* With its last descriptor the connection ends: nothing waits for us any more, so that no
	 * unmount can block */
	session_close(&s->session);
	unmount_finish(s);
	if (target_clean(s->target.path, &cleaned, &detached, &diag) < 0)
		log_msg(LOG_ERR, "%s", diag.text);
	else if (detached)
		log_msg(LOG_WARNING, "%s was in use and has been detached; its users get errors",
			s->target.path);
	journal_event(s, JOURNAL_GAVE_UP, &(struct journal_detail){.error = error},
		      "the export is given up: %s", why);
	supervisor_end(s, error, "%s: the export was given up: %s", s->image, why);
}

/* Left to itself, sd-event would let each of them be late by a quarter of a second. */
int supervisor_set_timer(struct supervisor *s, sd_event_source **timer, uint64_t pause_us,
			 sd_event_time_handler_t fn)
{
	*timer = sd_event_source_unref(*timer);
	return sd_event_add_time_relative(s->event, timer, CLOCK_MONOTONIC, pause_us,
					  pause_us / SUPERVISOR_TIMER_EXACT + 1, fn, s);
}

static int supervisor_on_stop(sd_event_source *source, const struct signalfd_siginfo *si,
			      void *data)
{
	struct supervisor *s = data;

	if (!s->mounted)
		supervisor_end(s, -ECANCELED, "%s: stopped before it was ready", s->image);
	else
		unmount_request(s);
	return 0;
}

static int supervisor_on_hangup(sd_event_source *source, const struct signalfd_siginfo *si,
				void *data)
{
	struct supervisor *s = data;

	reload_request(s);
	return 0;
}

static int supervisor_add_signals(struct supervisor *s)
{
	static const struct {
		int sig;
		sd_event_signal_handler_t handler;
	} handlers[] = {
		{SIGTERM, supervisor_on_stop},
		{SIGINT, supervisor_on_stop},
		{SIGHUP, supervisor_on_hangup},
	};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(handlers); i++)
		r = sd_event_add_signal(s->event, NULL, handlers[i].sig, handlers[i].handler, s);
	return r;
}

static int supervisor_open_image(struct supervisor *s, struct diag *diag)
{
	const struct locate_how how = {.writable = !s->config->read_only,
				       .direct = s->config->direct_io,
				       .settings = s->options->settings};

	if (how.writable && s->config->snapshot)
		return diag_set(diag, -EROFS,
				"an internal snapshot can only be read: with -o snapshot= also say "
				"-o ro");
	return locate_open_image(s->config->image, &how, &s->image_fd, &s->image, diag);
}

static unsigned supervisor_threads(const struct config *c)
{
	cpu_set_t cpus;
	unsigned n = SUPERVISOR_THREADS_MIN;

	if (c->threads)
		return c->threads;
	/* Most of their time is spent waiting for the host's disk */
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		n = 2 * (unsigned)CPU_COUNT(&cpus);
	if (n < SUPERVISOR_THREADS_MIN)
		return SUPERVISOR_THREADS_MIN;
	return n > SUPERVISOR_THREADS_MAX ? SUPERVISOR_THREADS_MAX : n;
}

static enum channel_partitions supervisor_partitions(const struct config *c, bool directory)
{
	if (!directory || c->partitions == CONFIG_NO)
		return CHANNEL_PARTITIONS_NONE;
	return c->partitions == CONFIG_YES ? CHANNEL_PARTITIONS_MUST : CHANNEL_PARTITIONS_READ;
}

void supervisor_fill_worker_config(struct supervisor *s)
{
	const struct config *c = s->config;
	struct worker_config *w = &s->worker_config;

	snprintf(w->format, sizeof(w->format), "%s", c->format);
	snprintf(w->partition, sizeof(w->partition), "%s", c->boot.partition ?: "");
	snprintf(w->snapshot, sizeof(w->snapshot), "%s", c->snapshot ?: "");
	w->read_only = c->read_only;
	w->growable = c->growable;
	w->discard = c->discard;
	w->table_cache = c->table_cache;
	w->directory = s->target.directory;
	w->partitions = supervisor_partitions(c, s->target.directory);
	w->page_cache = c->cache == CONFIG_CACHE_AUTO;
	w->mode = c->has_mode ? c->mode : c->read_only ? 0400 : 0600;
	w->uid = c->has_owner ? c->owner : getuid();
	w->gid = c->has_group ? c->group : getgid();
	w->threads = supervisor_threads(c);
}

/* lock_wait's: in the start alone, so that nobody waits for us. The loop does not turn meanwhile,
 * so the signals that stop us are asked for here. */
static int supervisor_on_lock_wait(void *data, const char *why)
{
	struct supervisor *s = data;
	const struct timespec now = {0};
	sigset_t stop;

	report_waiting(s, why);
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	return sigtimedwait(&stop, NULL, &now) < 0 ? 0 : -ECANCELED;
}

static int supervisor_lock(struct supervisor *s, const struct lock_wait *wait, struct diag *diag)
{
	int r = 0;

	if (s->config->lock)
		r = lock_image_wait(s->image_fd, s->image, !s->config->read_only, wait, diag);
	return r;
}

/* The file that this program was started from, as a reload will look for it. */
static int supervisor_find_program(struct supervisor *s, struct diag *diag)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n < 0)
		return diag_errno(diag, -errno, "/proc/self/exe");
	path[n] = '\0';
	s->program = strdup(path);
	return s->program ? 0 : diag_errno(diag, -ENOMEM, "%s", path);
}

/* All that can be checked and opened before there is a worker. */
static int supervisor_prepare(struct supervisor *s, struct diag *diag)
{
	const struct lock_wait wait = {.seconds = s->config->lock_wait,
				       .settings = s->options->settings,
				       .waiting = supervisor_on_lock_wait,
				       .data = s};
	bool cleaned = false;
	int r;

	r = supervisor_open_image(s, diag);
	if (r < 0)
		return r;
	if (s->options->make_target && (r = target_make(s->options->target, diag)) < 0)
		return r;
	/* Before the lock: "it is mounted there already" tells more than "somebody uses it" */
	r = target_check(s->options->target, s->image_fd, &s->target, &cleaned, diag);
	if (r == 0 && s->config->partitions == CONFIG_YES && !s->target.directory)
		r = diag_set(diag, -ENOTDIR,
			     "%s is not a directory: partitions=yes needs one to show them in",
			     s->target.path);
	if (r == 0)
		r = supervisor_lock(s, &wait, diag);
	if (r < 0)
		return r;
	if (cleaned)
		log_msg(LOG_NOTICE, "%s: took away an export whose program was gone",
			s->target.path);
	s->files = (struct files){.policy = &s->config->backing,
				  .top = s->image,
				  .top_fd = s->image_fd,
				  .writable = !s->config->read_only,
				  .direct = s->config->direct_io,
				  .lock = s->config->lock,
				  .wait = wait};
	supervisor_fill_worker_config(s);
	r = supervisor_find_program(s, diag);
	return r < 0 ? r : resume_open_life(s, diag);
}

/* What both a start and a continuation need. */
static int supervisor_set_up(struct supervisor *s, struct diag *diag)
{
	int r;

	s->program_fd = program_open(diag);
	if (s->program_fd < 0)
		return s->program_fd;
	r = sd_event_new(&s->event);
	if (r >= 0)
		r = supervisor_add_signals(s);
	if (r >= 0)
		r = report_start(s);
	if (r < 0)
		return diag_errno(diag, r, "the event loop");
	device_watch(s);
	return 0;
}

pid_t supervisor_fork(struct supervisor *s)
{
	pid_t pid = fork();

	if (pid == 0) {
		close(s->life_write);
		session_close(&s->session); /* of the child's memory */
	}
	return pid;
}

/* The signals that the loop reads; *ret_old is what was blocked before. */
static void supervisor_block_signals(sigset_t *ret_old)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	signal(SIGCHLD,
	       SIG_DFL); /* whoever started us may have ignored it: then nobody is reaped */
	signal(SIGPIPE, SIG_IGN); /* who reads our messages may go, the export stays */
	sigprocmask(SIG_BLOCK, &set, ret_old);
}

/* An image that was removed goes with its last descriptor, and what was written goes with it: no
 * success, however well it was flushed. */
static void supervisor_miss_image(struct supervisor *s)
{
	struct stat ours, there;

	if (s->outcome.error < 0 || !s->ready || s->config->read_only ||
	    fstat(s->image_fd, &ours) < 0 || !S_ISREG(ours.st_mode) || ours.st_nlink > 0)
		return;
	/* Some file systems do not count links */
	if (stat(s->image, &there) == 0 && there.st_dev == ours.st_dev &&
	    there.st_ino == ours.st_ino)
		return;
	diag_set(&s->outcome, -ENOENT,
		 "%s was removed while it was mounted: what was written to it is gone with it",
		 s->image);
}

/* Frees everything, reports the outcome to whoever waits for it, and returns it. */
static int supervisor_finish(struct supervisor *s, struct diag *diag)
{
	/* Without a loop nothing has changed yet: what is stored stays, for the next supervisor */
	bool left = s->resumed && !s->event;

	attend_finish(s);
	reload_finish(s);
	if (s->event)
		resume_forget(s);
	if (s->mounted)
		session_close(&s->session);
	unmount_finish(s);
	slots_unmap(&s->slots);
	files_done(&s->files);
	supervisor_miss_image(s);
	closep(&s->image_fd);
	closep(&s->program_fd);
	closep(&s->state_fd);
	closep(&s->life_read);
	closep(&s->life_write);
	sd_event_source_unref(s->life);
	sd_event_source_unref(s->restart);
	if (s->outcome.error < 0) {
		log_msg(LOG_ERR, "%s", s->outcome.text);
		report_failure(&s->report, &s->outcome);
	} else {
		log_msg(LOG_INFO, "%s: everything is written, done", s->image);
	}
	report_finish(s);
	device_finish(s);
	sd_event_unref(s->event);
	if (!s->ready && s->outcome.error == 0)
		diag_set(&s->outcome, -ECANCELED, "%s: unmounted before it was ready", s->image);
	if (!s->ready)
		s->options->ready(s->options->ready_data, s->outcome.error, &s->outcome);
	/* Last: who waits for this may take the image away */
	if (left)
		registry_leave(s->own);
	else
		registry_remove(s->own, &s->outcome);
	if (s->options->make_target)
		rmdir(s->options->target);
	target_done(&s->target);
	free(s->image);
	free(s->source);
	free(s->program);
	config_done(&s->own_config);
	return s->outcome.error < 0 ? diag_set(diag, s->outcome.error, "%s", s->outcome.text) : 0;
}

bool supervisor_goes_on(void)
{
	return handover_expected();
}

static int supervisor_start(struct supervisor *s, struct handover *h, struct diag *diag)
{
	int r = resume_take(s, h, diag);

	if (r == 0)
		r = supervisor_prepare(s, diag);
	if (r >= 0)
		r = supervisor_set_up(s, diag);
	if (r < 0)
		return r;
	return s->resumed ? resume_start(s, diag) : attend_start(s, diag);
}

/* For the supervisor that has started us, which reads what we log. */
static int supervisor_offer(const struct supervisor_options *options, struct handover *h,
			    struct diag *diag)
{
	struct diag own = {0};
	int r = prepare_run(options, h, &own);

	handover_done(h);
	if (r < 0)
		log_msg(LOG_ERR, "%s", own.text);
	return r < 0 ? diag_set(diag, r, "%s", own.text) : 0;
}

int supervisor_run(const struct supervisor_options *options, struct diag *diag)
{
	struct supervisor s = {
		.options = options,
		.config = options->config,
		.syslog = options->syslog,
		.state_fd = -1,
		.life_read = -1,
		.life_write = -1,
		.program_fd = -1,
		.image_fd = -1,
		.attend = {.channel = -1},
		.unmount = {.watch_fd = -1, .answer = -1},
		.report = {.notify.fd = -1},
		.reload = {.said_fd = -1, .offer_fd = -1},
	};
	struct handover h;
	sigset_t old;
	int r;

	handover_receive(&h);
	if (handover_find(&h, "offer") >= 0 && handover_find(&h, "life") < 0)
		return supervisor_offer(options, &h, diag);
	supervisor_block_signals(&old);
	report_init(&s.report);
	r = supervisor_start(&s, &h, &s.outcome);
	if (r >= 0)
		r = sd_event_loop(s.event);
	if (r < 0 && !s.outcome.text[0])
		diag_errno(&s.outcome, r, "%s: the event loop", options->target);
	r = supervisor_finish(&s, diag);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return r;
}
