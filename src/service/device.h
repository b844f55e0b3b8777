/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_DEVICE_H
#define FUSEIMG_DEVICE_H

/*
 * An image that is a block device: udev tells when it gets another size or goes away. A larger one
 * is taken over by a reload; when it is gone the export ends, since every request would fail.
 */

#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct supervisor;
struct udev_monitor;

struct device {
	struct udev_monitor *monitor;
	sd_event_source *source;
	dev_t number;
	uint64_t size;
};

/* Begins to watch, where the image is a block device. What fails is logged: the export works
 * without. */
void device_watch(struct supervisor *s);
void device_finish(struct supervisor *s);

#endif
