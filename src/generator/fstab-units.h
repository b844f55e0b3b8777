/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_FSTAB_UNITS_H
#define FUSEIMG_FSTAB_UNITS_H

/*
 * Lines of /etc/fstab with the type fuseimg. Their mount units are systemd's; the mount helper
 * (mount.fuseimg) starts the export from within the mount. What systemd cannot know is the order at
 * shutdown: a drop-in puts the mount behind the service and what that mounts.
 */

#include "service/fstab.h"
#include "generator/unit-file.h"

/* Writes the drop-ins for one entry; nothing for one of another type. */
int fstab_units_write(const struct unit_dir *dir, const struct fstab *fstab,
		      const struct fstab_entry *entry, struct diag *diag);

#endif
