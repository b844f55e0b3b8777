/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_REGISTRY_DIR_H
#define FUSEIMG_REGISTRY_DIR_H

/* The directories that registry.c keeps its entries in: which there are, and whom to believe. */

#include <limits.h>
#include <stddef.h>

#include "base/diag.h"

enum {
	REGISTRY_DIRS_MAX = 4,
};

/* Where to look, the place of our own entries first. */
struct registry_dirs {
	size_t n;
	char path[REGISTRY_DIRS_MAX][PATH_MAX];
};

/* FUSEIMG_RUNTIME_DIR replaces them all (tests). */
void registry_dirs_init(struct registry_dirs *dirs);

/* Opens a directory whose content is the caller's or root's to say; else -EPERM. */
int registry_dir_open(const char *path, int *ret);

/* Makes and opens the directory for the caller's own entries; its path in *ret_path (of dirs). */
int registry_dir_own(struct registry_dirs *dirs, const char **ret_path, int *ret,
		     struct diag *diag);

/* The lock of an open directory, held until the fd is closed. -EACCES: it is another's. */
int registry_dir_lock(int dir_fd, int *ret);

#endif
