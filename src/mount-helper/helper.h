/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_HELPER_H
#define FUSEIMG_HELPER_H

/*
 * What mount(8) and umount(8) call: mount.fuseimg and umount.fuseimg, with the words that both give
 * to helpers ("External helpers" in their manual pages). They return an exit status as those do.
 */

#include "base/diag.h"

enum {
	HELPER_OK = 0,
	HELPER_USAGE = 1,
	HELPER_FAILED = 32,
};

int helper_mount(int argc, char **argv, struct diag *diag);
int helper_umount(int argc, char **argv, struct diag *diag);

#endif
