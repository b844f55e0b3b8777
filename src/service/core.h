/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SERVICE_CORE_H
#define FUSEIMG_SERVICE_CORE_H

/*
 * Private to the supervisor: what it knows, shared by its parts.
 *
 *   supervisor.c  the run from beginning to end, signals
 *   attend.c      the worker: starting it, its death and its successor
 *   hear.c        what it says
 *   unmount.c     the end of the mount: ours (stopping) or somebody else's
 *   examine.c     whether the worker hangs
 *   device.c      an image that is a block device, which may grow or go
 *   report.c      what the service manager is told
 *   resume.c      what outlives a supervisor: keeping it, and going on with it
 *   reload.c      SIGHUP: another configuration and program for the same mount
 *   fit.c         what there is, made to fit the configuration in force
 *
 * One thread, one loop; nothing here blocks once the mount is up, because who waits for the mount
 * may wait for a worker that we have to start. For the same reason no path at or below the target
 * is touched while it is mounted: the mount table is read, and a child does the unmounting.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "base/diag.h"
#include "base/rate.h"
#include "service/config.h"
#include "service/crashes.h"
#include "service/device.h"
#include "service/files.h"
#include "service/handover.h"
#include "service/pulse.h"
#include "service/registry.h"
#include "service/report.h"
#include "service/supervisor.h"
#include "service/target.h"
#include "session/channel.h"
#include "session/session.h"
#include "session/slots.h"

/* How far the conversation with the worker of now has come. */
enum attend_phase {
	ATTEND_NONE,	 /* there is no worker (yet, or while a new start waits) */
	ATTEND_OPENING,	 /* START was sent */
	ATTEND_STARTING, /* OPENED came, SERVE was sent */
	ATTEND_SERVING,	 /* SERVING came */
	ATTEND_CLOSING,	 /* CLOSING came: it flushes, for as long as that takes */
	ATTEND_OVER,	 /* DONE or FAILED came: nothing more is expected but its exit */
};

/* The worker of now. */
struct attend {
	enum attend_phase phase;
	pid_t pid;
	int channel;
	sd_event_source *io, *child, *grace;
	uint64_t started_us;
	unsigned opens;	     /* OPEN messages */
	const char *accused; /* what we killed it for, or NULL */
	bool done;	     /* DONE came; `end` is its outcome */
	bool failed;	     /* FAILED came; `end` is why */
	struct diag end;
};

struct unmount {
	bool wanted;	    /* told to stop */
	uint64_t wanted_us; /* since when */
	bool gone;	    /* the mount table no longer knows our file system */
	bool taken;	    /* we have unmounted it at one place; it may stand at others */
	pid_t child;	    /* the attempt under way, 0: none */
	int answer;	    /* its pipe: who is in the way */
	unsigned attempts;
	sd_event_source *child_source, *timer, *watch;
	int watch_fd;
	char busy[DIAG_MAX]; /* who was said to be in the way */
};

/* How far a reload has come; see reload.c. */
enum reload_phase {
	RELOAD_NONE,
	RELOAD_PREPARING, /* a child, the new program, judges the new configuration */
	RELOAD_FLUSHING,  /* a child brings to stable storage what the worker would flush at its end
			   */
	RELOAD_DRAINING,  /* the worker was told to stop */
	RELOAD_TRYING,	  /* after execve: the first worker with the new configuration starts */
};

struct reload {
	enum reload_phase phase;
	bool again;	/* asked for once more meanwhile */
	unsigned tries; /* workers that were told to end */
	pid_t child;
	sd_event_source *child_source, *timer;
	int said_fd;	      /* memfd: what the child wrote to its standard error */
	int offer_fd;	      /* memfd: the state as it would be */
	struct config before; /* TRYING: what to go back to */
};

struct supervisor {
	const struct supervisor_options *options;
	const struct config *config; /* in force: options->config, or own */
	struct config own_config;
	sd_event *event;

	/* what outlives this process */
	char *program; /* the file to execute at a reload */
	int state_fd;
	struct handover kept; /* what is in systemd's fd store, and under which name */
	bool released;	      /* ... nothing, and nothing is to be kept any more */
	bool resumed;
	bool syslog; /* log_init() was called so, by us or by who began: passed on at each reload */
	/*
	 * A pipe through which nothing is said. Its read end is kept; a write end is held by us and
	 * by the worker (as its standard input) alone. So the read end hangs up when both are gone,
	 * to the last thread, and never before: what a successor must wait for.
	 */
	int life_read, life_write;
	sd_event_source *life;

	/* what outlives the workers */
	int program_fd;
	int image_fd;
	char *image; /* real path */
	struct target target;
	struct files files;
	struct worker_config worker_config;
	struct worker_opened opened;
	struct session session;
	struct slots slots;
	dev_t dev;    /* of our file system */
	char *source; /* as the mount table has it */
	bool mounted; /* the session is up */
	bool ready;   /* the caller was told how the start went */
	struct registry_own *own;
	struct report report;
	struct device device;
	struct pulse pulse; /* of the worker of now */
	struct pulse_limits pulse_limits;
	uint64_t disk_hangs_us; /* since when, at the last time */

	struct attend attend;
	struct crashes crashes;
	bool careful;		  /* the next worker replays one request at a time */
	unsigned reopen_failures; /* in a row */
	unsigned young_kills;	  /* in a row */
	sd_event_source *restart;
	struct rate worker_log;

	struct unmount unmount;
	struct reload reload;
	struct diag outcome; /* of the run; set by supervisor_end() */
};

/* Ends the loop with this outcome; the first one stands. error 0: everything is as it should be. */
void supervisor_end(struct supervisor *s, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The export cannot go on: those who wait get EIO, the mount goes, the run ends. */
void supervisor_give_up(struct supervisor *s, int error, const char *why);
/*
 * fork(2) for what may wait: for a worker, a disk, another process. The child has none of the
 * descriptors whose last end others wait for: the life pipe's, and those of the connection, which
 * ends with them however long a child goes on.
 */
pid_t supervisor_fork(struct supervisor *s);

/* Calls fn once, after the pause; replaces the timer that stands in *timer. */
int supervisor_set_timer(struct supervisor *s, sd_event_source **timer, uint64_t pause_us,
			 sd_event_time_handler_t fn);

/* What a worker is told, from the configuration in force. */
void supervisor_fill_worker_config(struct supervisor *s);

/* resume.c */
/*
 * Takes over the session that came with h, if one did. 1: it is ours now; 0: there is none (what
 * there was of it is gone for good); negative: it is there but not for us, and stays where it was.
 */
int resume_take(struct supervisor *s, struct handover *h, struct diag *diag);
/* attend_start(), as soon as nobody of an earlier run is left who might touch the image. */
int resume_start(struct supervisor *s, struct diag *diag);
/* Writes down what has changed, for a successor. */
void resume_save(struct supervisor *s);
/* The same, with what the slots say besides requests: for a program that has another layout of
 * them. While no request is in hand; whoever starts a worker after all has to save again. */
void resume_save_carried(struct supervisor *s);
/* All descriptors that a successor needs; they stay ours. */
void resume_list(const struct supervisor *s, struct handover *ret);
/* The connection has ended: there is nothing to go on with. What systemd held it lets go of now,
 * and not when the image is flushed, which may take long, or be cut off. */
void resume_release(struct supervisor *s);
/* Nobody is to go on with this session; systemd has seen that. */
void resume_forget(struct supervisor *s);
/* The pipe that tells a successor of our death. */
int resume_open_life(struct supervisor *s, struct diag *diag);

/* fit.c */
/* Access modes of the image's files, locks, clones and slots, as s->config wants them. While no
 * worker lives. On failure what was changed is still good for the configuration before. */
int fit_all(struct supervisor *s, struct diag *diag);
/* The mount's own read-only flag; a child does it. For when a worker serves. */
void fit_mount(struct supervisor *s);

/* reload.c */
void reload_request(struct supervisor *s);
/* The request that had to wait, if there is one. */
void reload_pending(struct supervisor *s);
/* The drained worker is gone: executes the new program. Returns when that failed or has to wait, or
 * when there is nothing to execute: then a worker has to be started. */
void reload_execute(struct supervisor *s);
/* A state was offered by the program before us: try its configuration. */
void reload_try(struct supervisor *s, int offer_fd);
/* The first worker after execve serves, or does not (true: there is something to go back to, and we
 * are back). */
void reload_served(struct supervisor *s);
bool reload_revert(struct supervisor *s, const char *why);
void reload_finish(struct supervisor *s);

/* attend.c */
/* Tells the worker to finish what it has in hand and to end, within a limit. */
void attend_drain(struct supervisor *s);
int attend_start(struct supervisor *s, struct diag *diag);
/* Ends a worker that broke the rules, or hangs; `of` is static. Its death is handled like any other
 * crash. -EPROTO. */
int attend_accuse(struct supervisor *s, const char *of);
/* Asks the worker for a sign of life. */
void attend_ping(struct supervisor *s);
/* Tells it something. -EPIPE: it is gone; -EPROTO: it was accused of not listening. */
int attend_send(struct supervisor *s, const struct channel_msg *msg, const int *fds, size_t n);
/* From here on only its exit is expected. */
void attend_expect_exit(struct supervisor *s);
/* The time of this turn of the loop, monotonic. */
uint64_t attend_now(struct supervisor *s);
/* Kills and reaps a worker that is left at the end of the run. */
void attend_finish(struct supervisor *s);

/* hear.c */
/* Reads what the worker has said. 1: more may follow; 0: nothing more for now; negative: no more
 * from this one. */
int hear_receive(struct supervisor *s);

/* examine.c */
/* To be called every few seconds. */
void examine_worker(struct supervisor *s, uint64_t now);

/* unmount.c */
int unmount_watch(struct supervisor *s, struct diag *diag);
/* Told to stop: an attempt at once, and more until one succeeds. */
void unmount_request(struct supervisor *s);
void unmount_finish(struct supervisor *s);

#endif
