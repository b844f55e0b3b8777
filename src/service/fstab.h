/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_FSTAB_H
#define FUSEIMG_FSTAB_H

/* What /etc/fstab says, as far as it concerns exports: which directories are taken, and what lies
 * on a network. */

#include <stdbool.h>
#include <stddef.h>

#include "base/diag.h"

struct fstab_entry {
	char *spec, *dir, *type, *options;
};

struct fstab {
	struct fstab_entry *entries;
	size_t n;
};

/* A file that is not there is an empty one. SYSTEMD_FSTAB names another, as for systemd's own
 * generator. */
int fstab_load(struct fstab *ret, struct diag *diag);
void fstab_done(struct fstab *f);

/* The file that fstab_load() reads. */
const char *fstab_path(void);

/* The entry of a mount point, or NULL. */
const struct fstab_entry *fstab_find(const struct fstab *f, const char *dir);

/* Does the path lie on a file system that needs the network? By its name: links are not followed.
 */
bool fstab_on_network(const struct fstab *f, const char *path);
/* Is the file system of an entry such a one? */
bool fstab_needs_network(const struct fstab_entry *e);

#endif
