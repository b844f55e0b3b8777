/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_EXPORT_UNITS_H
#define FUSEIMG_EXPORT_UNITS_H

/*
 * What systemd is told about one export.
 *
 * The service comes from the package (fuseimg@.service); a drop-in says what its image needs:
 *
 *   image is a file     the file systems that it lies on
 *   ... on a network    also the network, so that the export ends before that does
 *   image is a device   BindsTo=: no export without it. The device wants the service, so that the
 *                       export begins when the device appears, be that at boot or a day later; and
 * a boot does not wait for a disk that may stay away
 *
 * With MOUNT= there is a unit for the file system in the image, ordered behind the service. That is
 * the order at shutdown, too, the other way round: file system, loop device, export. It must not be
 * stopped when the service fails: whoever writes there would then write into the directory below.
 *
 * NOFAIL=no makes the mount (without MOUNT=, the service) a requirement of its target, and orders
 * the mount before that; else nothing waits.
 */

#include "service/fstab.h"
#include "generator/unit-file.h"
#include "service/config.h"

/* name: checked by instance_check(); source: its file. Stops at the first error; what was written
 * until then is harmless. */
int export_units_write(const struct unit_dir *dir, const struct fstab *fstab, const char *name,
		       const char *source, const struct config *config, struct diag *diag);

#endif
