/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SUPERVISOR_H
#define FUSEIMG_SUPERVISOR_H

/*
 * The process that owns a mount: it opens files by policy, mounts, keeps every fd, starts the
 * worker, replaces it when it dies, and ends when the target is unmounted. It never looks at a byte
 * of image content. See ARCHITECTURE.md for the life of a request across a worker's death, and of
 * an export across its supervisor's.
 */

#include <stdbool.h>

#include "base/diag.h"
#include "service/config.h"

/* Called once, when the export is usable (error 0) or will never be (negative errno, diag). */
typedef void (*supervisor_ready_fn)(void *data, int error, const struct diag *diag);

struct supervisor_options {
	const struct config *config;
	const char *target; /* a directory or regular file */
	bool make_target;   /* a directory is made there if there is nothing, and goes with us */
	/* Of an instance of fuseimg@.service; else NULL */
	const char *name;
	const char *settings; /* the file that its user changes config in; NULL: -o */
	supervisor_ready_fn ready;
	void *ready_data;
	/*
	 * The command line that leads here, for the reload: it is executed again by the program
	 * that is installed then. NULL: no reload.
	 */
	char *const *argv;
	/* config comes from the command line: a reload has nothing to read again */
	bool fixed;
	bool syslog; /* log_init() was called so */
};

/*
 * Whether this process was started to go on with an export (a reload, or systemd after a crash).
 * The configuration that is in force comes with it: one that cannot be read is no reason to fail.
 */
bool supervisor_goes_on(void);

/*
 * Runs an export until it is unmounted, told to stop (SIGTERM, SIGINT: unmount when nobody uses it)
 * or cannot go on. 0: everything that was written is on stable storage. Else negative errno, with
 * the sentence in diag (and logged).
 */
int supervisor_run(const struct supervisor_options *options, struct diag *diag);

#endif
