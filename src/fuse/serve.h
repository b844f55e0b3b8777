/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SERVE_H
#define FUSEIMG_SERVE_H

/*
 * Serving a connection: N threads, each blocked in read(2) on its own cloned fd, each with its own
 * slot. A thread takes a request from start to end, with blocking I/O, and answers on the fd that
 * the request came in on.
 *
 * The session is up before we start (mounted, INIT answered), whether this is its first worker or
 * its tenth: what the last worker left in the slots is replayed first.
 *
 * System calls of the threads, beyond those of the image: read, write, mmap, munmap,
 * mprotect, madvise, futex, rt_sigaction, rt_sigprocmask, clone3, clone, set_robust_list, rseq,
 * rt_sigreturn, exit, tgkill, getpid, gettid, clock_gettime, clock_nanosleep, eventfd2, poll.
 * All but those of thread creation come after serve_start() too.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"
#include "image/image.h"
#include "image/partition.h"
#include "session/channel.h"
#include "session/session.h"

/*
 * A sentence for the journal: level is a syslog priority, error a negative errno (0: none), off the
 * guest offset (UINT64_MAX: none). Called from serving threads, several at once, for each request
 * that failed: a broken image makes many of them, so the function must limit their rate.
 */
typedef void (*serve_log_fn)(void *data, int level, int error, uint64_t off, const char *text);

struct serve_options {
	struct image *image; /* open; stays the caller's, who closes it after serve_stop() */
	const struct worker_config *config;    /* as in START; copied */
	const struct session_granted *granted; /* as in SERVE; copied */
	int slots_fd;			       /* memfd of slots.h; stays the caller's */
	const int
		*thread_fds; /* one clone per thread; stay the caller's, open until serve_stop() */
	unsigned n;
	/* The partitions to show from now on (NULL: none); without set_partitions those that the
	 * slots tell of */
	bool set_partitions;
	const struct partition_table *partitions;
	unsigned selected; /* number of the one that PARTITION= means, 0: none */
	serve_log_fn log;  /* may be NULL */
	void *log_data;
};

struct serve;

/*
 * Maps the slots, replays those that no thread will own, starts the threads; each replays its own
 * slot, then serves. Uses SIGUSR1 (handler without SA_RESTART) and blocks every signal in the
 * threads. On failure nothing runs and diag has the sentence.
 */
int serve_start(const struct serve_options *options, struct serve **ret, struct diag *diag);

/* An eventfd that becomes readable when every thread has left by itself: the connection has ended
 * (unmounted, aborted). Valid until serve_stop(). */
int serve_ended_fd(const struct serve *s);

/* The requests in hand are finished and answered, no new one is taken, all threads are joined;
 * frees s. Takes NULL. Returns 0, or the negative errno that ended a thread other than by the end
 * of the connection. */
int serve_stop(struct serve *s);

#endif
