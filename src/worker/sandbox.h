/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SANDBOX_H
#define FUSEIMG_SANDBOX_H

/*
 * What the worker gives up before it looks at the first byte of an image. Afterwards the process
 * can use the descriptors that it has or is sent, memory, threads of its own and the clock; it
 * can open, execute, connect to or signal nothing.
 *
 * Started by root all of it must work. Of an ordinary user's rights there is less to drop and less
 * means to do it: the namespaces are taken where the system lets users have them, the rest
 * (Landlock, seccomp, no new privileges) applies as for root.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "base/diag.h"

/* Called in a signal handler with the number of a system call that was not allowed, before it ends
 * the process. */
typedef void (*sandbox_forbidden_fn)(int nr);

/* For a process with one thread, once. On failure the process must not go on. forbidden may be
 * NULL.
 */
int sandbox_enter(sandbox_forbidden_fn forbidden, struct diag *diag);

/*
 * The same for a program that has no business but to read one descriptor, and runs where namespaces
 * and mounts are forbidden to begin with (udev's rules). What an open descriptor does not lead to
 * is out of reach by Landlock and the filter.
 */
int sandbox_enter_narrow(struct diag *diag);

/* The parts, for sandbox_enter() and its test. */

/* Namespaces of our own on an empty, read-only root. user: a user namespace gives the right to do
 * so. In a chroot, whose root cannot be exchanged, the file system stays in sight. */
int sandbox_root_enter(bool user, struct diag *diag);

/* No rights on any file system, on the network by TCP, towards other processes' sockets and by
 * signals, as far as the running kernel's Landlock goes. */
int sandbox_landlock(struct diag *diag);

/* The system calls that are left. Threads with SIGSYS blocked die without a word. */
int sandbox_seccomp(sandbox_forbidden_fn forbidden, struct diag *diag);

#endif
