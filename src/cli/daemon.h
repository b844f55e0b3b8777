/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_DAEMON_H
#define FUSEIMG_DAEMON_H

#include "service/supervisor.h"

/*
 * Runs the supervisor in a process of its own, away from the terminal, and returns when the export
 * is usable (0) or will never be (negative errno and the sentence; nothing is left behind then).
 * An interrupt meanwhile takes everything back: -EINTR. options' ready function is not used. Paths
 * must be absolute.
 */
int daemon_start(const struct supervisor_options *options, struct diag *diag);

#endif
