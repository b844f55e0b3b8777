/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/lookout.h"

#include <poll.h>
#include <time.h>

#include "base/checked.h"

static int64_t lookout_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void lookout_look(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int64_t end = lookout_now() + LOOKOUT_US * 1000;

	while (poll(&p, 1, 0) <= 0 && lookout_now() < end)
		;
}

/* The end of a trial: which kind is it to be? */
static void lookout_compare(struct lookout *l)
{
	bool usual = !l->looking;

	l->trial = false;
	l->looking = l->ns[true] + l->ns[true] / 10 < l->ns[false];
	l->stay = l->looking == usual ? (unsigned)min_u64(2 * l->stay + 1, LOOKOUT_STAY) : 1;
	l->left = l->stay;
}

void lookout_judge(struct lookout *l, int64_t ns)
{
	l->ns[l->looking] = ns;
	if (l->trial) {
		lookout_compare(l);
	} else if (l->left > 0) {
		l->left--;
	} else {
		l->trial = true;
		l->looking = !l->looking;
	}
}

void lookout_wait(struct lookout *l, int fd)
{
	if (l->seen == 0)
		l->began = lookout_now();
	if (l->seen++ == LOOKOUT_WINDOW) {
		lookout_judge(l, lookout_now() - l->began);
		l->seen = 0;
	}
	if (l->looking)
		lookout_look(fd);
}

void lookout_skip(struct lookout *l)
{
	l->seen = 0;
}
