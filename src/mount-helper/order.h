/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_ORDER_H
#define FUSEIMG_ORDER_H

/*
 * What systemd is to know of a mount that was made by hand, so that the end of the machine has an
 * order: what the image needs, and that the mount stands on the export. The same drop-ins as the
 * generator writes for lines of /etc/fstab, in /run/systemd/system. systemd reads them when it
 * first meets both units, which is after we have written them. They are true until the next boot
 * and stay until then.
 */

#include "mount-helper/source.h"

/* Without systemd, or where it fails, nothing happens: the mount is good, and the export waits for
 * it in any case. image: of an export of ours; dir: the mount point. */
void order_write(const struct source *s, const char *image, const char *dir);

#endif
