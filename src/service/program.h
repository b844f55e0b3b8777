/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROGRAM_H
#define FUSEIMG_PROGRAM_H

/* The worker as a process: what is executed, and how it came to its end. */

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/diag.h"

/*
 * The worker's program: the installed one, or the one that FUSEIMG_WORKER names. Opened once and
 * kept: every worker of an export runs the code that belongs to its supervisor, also when a
 * package upgrade replaces the file meanwhile. An fd or negative errno.
 */
int program_open(struct diag *diag);

/*
 * Starts a worker with nothing but a channel, our standard error, and signals as they are by
 * default. Its standard input is life_fd, which it does not use: that it is open shows that the
 * worker lives. *ret_channel is our end: it does not block.
 */
int program_spawn(int program_fd, int life_fd, int *ret_channel, pid_t *ret_pid, struct diag *diag);

/* "was killed by SIGSEGV", "exited with status 3", as a part of a sentence. */
const char *program_describe_end(const siginfo_t *end, char *buf, size_t size);

#endif
