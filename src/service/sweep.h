/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SWEEP_H
#define FUSEIMG_SWEEP_H

/*
 * The end of the machine, for what systemd does not end.
 *
 * A shutdown stops the mounts that systemd knew when it began. It reads the mount table with a
 * limit on the rate, so one that was made in the last second before is missing; a bare loop device
 * (losetup) has no unit at all. Both are left to systemd's last phase, which first kills
 * every process: the export would wait for them until it is killed, and what the file system has
 * not written yet would be lost. So they are ended here, as that phase would do it: plain unmounts,
 * and loop devices that are flushed and let go.
 *
 * Mounts for which systemd has a job are left to it: services may be ahead of them in the queue.
 */

/* Does nothing unless the machine goes down. Waits for the worker, and for the service manager: for
 * a child. */
void sweep(const char *target);

#endif
