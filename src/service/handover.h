/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_HANDOVER_H
#define FUSEIMG_HANDOVER_H

/*
 * Descriptors with names, on their way from one supervisor to the next. Two ways lead there and the
 * receiver need not know which it was: execve(2) by a supervisor that reloads (FUSEIMG_HANDOVER in
 * the environment), or systemd's fd store (sd_listen_fds(3)).
 */

#include <stdbool.h>

#include "service/notify.h"
#include "session/channel.h"
#include "session/slots.h"

enum {
	HANDOVER_NAME_MAX = 24,
	/* clones, the image's files, and what there is one of */
	HANDOVER_MAX = SLOTS_MAX + CHANNEL_OPENS_MAX + 16,
};

struct handover {
	struct {
		char name[HANDOVER_NAME_MAX]; /* "" when it was taken */
		int fd;
	} fds[HANDOVER_MAX];
	unsigned n;
	bool by_exec; /* received from a supervisor that reloads */
};

/* Whether the environment of this process promises a whole session (and not only what a child that
 * prepares a reload is given). */
bool handover_expected(void);

/* Takes those that the environment speaks of, and removes them from there; all are close-on-exec
 * then. Descriptors of unknown origin beyond HANDOVER_MAX are closed. */
void handover_receive(struct handover *ret);

/* The descriptor of that name, which is the caller's from then on; -1: there is none. */
int handover_take(struct handover *h, const char *name);
/* Likewise, of the first name that begins so; the rest of it in *ret_rest. */
int handover_take_prefix(struct handover *h, const char *prefix, char *ret_rest);
/* Closes what nobody took. */
void handover_done(struct handover *h);

/* Adds one that stays the caller's. -1 is left out. */
void handover_add(struct handover *h, int fd, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The descriptor that has the name, or -1. */
int handover_find(const struct handover *h, const char *name);

/*
 * Executes program with them. Returns, with a negative errno, only when that fails: everything is
 * as before then.
 */
int handover_exec(const struct handover *h, const char *program, char *const argv[]);

/*
 * Puts one into systemd's fd store; nothing where there is none. Where its queue is full it waits
 * for room, *patience times a hundredth of a second at most, and takes from that what it used: so
 * that all who share it wait no longer than one. -EAGAIN: it was not stored.
 */
#define HANDOVER_PATIENCE 100
int handover_store(const struct notify *n, const char *name, int fd, unsigned *patience);
/* Takes all of that name out of it. */
void handover_unstore(struct notify *n, const char *name);
/* Returns when systemd has seen all of that, or does not look. */
void handover_settle(const struct notify *n);

#endif
