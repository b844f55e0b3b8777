/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SERVICE_CORE_H
#define FUSEIMG_SERVICE_CORE_H

/*
 * Private to the supervisor: what it knows, shared by its three parts.
 *
 *   supervisor.c  the run from beginning to end, signals
 *   attend.c      the worker: starting it, the conversation, its death and its successor
 *   unmount.c     the end of the mount: ours (stopping) or somebody else's
 *   report.c      what the service manager is told
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
#include "service/files.h"
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
	bool wanted; /* told to stop */
	bool gone;   /* the mount table no longer knows our file system */
	pid_t child; /* the attempt under way, 0: none */
	int answer;  /* its pipe: who is in the way */
	unsigned attempts;
	sd_event_source *child_source, *timer, *watch;
	int watch_fd;
	char busy[DIAG_MAX]; /* who was said to be in the way */
};

struct supervisor {
	const struct supervisor_options *options;
	const struct config *config;
	sd_event *event;

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

	struct attend attend;
	struct crashes crashes;
	unsigned reopen_failures; /* in a row */
	unsigned young_kills;	  /* in a row */
	sd_event_source *restart;
	struct rate worker_log;

	struct unmount unmount;
	struct diag outcome; /* of the run; set by supervisor_end() */
};

/* Ends the loop with this outcome; the first one stands. error 0: everything is as it should be. */
void supervisor_end(struct supervisor *s, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The export cannot go on: those who wait get EIO, the mount goes, the run ends. */
void supervisor_give_up(struct supervisor *s, int error, const char *why);

/* attend.c */
int attend_start(struct supervisor *s, struct diag *diag);
/* Kills and reaps a worker that is left at the end of the run. */
void attend_finish(struct supervisor *s);

/* unmount.c */
int unmount_watch(struct supervisor *s, struct diag *diag);
/* Told to stop: an attempt at once, and more until one succeeds. */
void unmount_request(struct supervisor *s);
void unmount_finish(struct supervisor *s);

#endif
