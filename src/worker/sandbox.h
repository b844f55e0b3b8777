/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SANDBOX_H
#define FUSEIMG_SANDBOX_H

/*
 * What the worker gives up before it looks at the first byte of an image. Afterwards the process
 * can use the descriptors that it has or is sent, memory, threads of its own and the clock; it
 * can open, execute, connect to or signal nothing.
 *
 * What every kernel that we support gives to everybody must work, or nothing is served: the filter,
 * no new privileges, no capabilities; for root also the change of user and the namespaces, which
 * who may mount may make. What a system may lack, or keep from those in a container, is done
 * without, and said: Landlock, an empty root directory (in a chroot), an ordinary user's
 * namespaces. The filter alone leaves no way to a file or a socket.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "base/diag.h"

/* Called in a signal handler with the number of a system call that was not allowed, before it ends
 * the process. */
typedef void (*sandbox_forbidden_fn)(int nr);

/* What can be missing. */
enum sandbox_lack {
	SANDBOX_LACKS_LANDLOCK = 1 << 0,
	SANDBOX_LACKS_NAMESPACES = 1 << 1,
	SANDBOX_LACKS_ROOT = 1 << 2, /* the file system stays in sight */
};

/* For a process with one thread, once. On failure the process must not go on; else a set of enum
 * sandbox_lack. forbidden may be NULL. */
int sandbox_enter(sandbox_forbidden_fn forbidden, struct diag *diag);

/*
 * The same for a program that has no business but to read one descriptor, and runs where namespaces
 * and mounts are forbidden to begin with (udev's rules). What an open descriptor does not lead to
 * is out of reach by Landlock and the filter.
 */
int sandbox_enter_narrow(struct diag *diag);

/* The parts, for sandbox_enter() and its test. */

/* Namespaces of our own on an empty, read-only root. user: a user namespace gives the right to do
 * so. 0, or SANDBOX_LACKS_ROOT in a chroot, whose root cannot be exchanged. */
int sandbox_root_enter(bool user, struct diag *diag);

/* No rights on any file system, on the network by TCP, towards other processes' sockets and by
 * signals, as far as the running kernel's Landlock goes. 0, or SANDBOX_LACKS_LANDLOCK: it is not
 * there, or a container's filter keeps it from us. */
int sandbox_landlock(struct diag *diag);

/* The system calls that are left. Threads with SIGSYS blocked die without a word. */
int sandbox_seccomp(sandbox_forbidden_fn forbidden, struct diag *diag);

#endif
