/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/core.h"

#include <errno.h>
#include <libudev.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/parse.h"
#include "service/journal.h"

DEFINE_CLEANUP(struct udev_device *, udev_device_unref);
DEFINE_CLEANUP(struct udev *, udev_unref);

static void device_gone(struct supervisor *s)
{
	device_finish(s);
	journal_event(s, JOURNAL_DEVICE_GONE, &(struct journal_detail){.error = -ENODEV},
		      "the block device is gone");
	if (s->mounted)
		supervisor_give_up(s, -ENODEV, "its block device is gone");
	else
		supervisor_end(s, -ENODEV, "%s: the block device is gone", s->image);
}

static void device_check_size(struct supervisor *s)
{
	uint64_t before = s->device.size, now = 0;
	char old_text[32], new_text[32];

	if (ioctl(s->image_fd, BLKGETSIZE64, &now) < 0 || now == before)
		return;
	s->device.size = now;
	format_size(old_text, sizeof(old_text), before);
	format_size(new_text, sizeof(new_text), now);
	if (now > before) {
		log_msg(LOG_NOTICE, "%s: has grown from %s to %s", s->image, old_text, new_text);
		reload_request(s);
	} else {
		log_msg(LOG_ERR, "%s: has shrunk from %s to %s; what stood behind that is lost",
			s->image, old_text, new_text);
		report_problem(s, "the block device has shrunk from %s to %s", old_text, new_text);
	}
}

static int device_on_event(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct supervisor *s = data;
	_cleanup_(udev_device_unrefp) struct udev_device *d =
		udev_monitor_receive_device(s->device.monitor);
	const char *action = d ? udev_device_get_action(d) : NULL;

	if (d && udev_device_get_devnum(d) != s->device.number)
		return 0;
	if (action && strcmp(action, "remove") == 0)
		device_gone(s);
	else /* also when an event was lost */
		device_check_size(s);
	return 0;
}

/* Events that udev has processed, or the kernel's own where there is no udev. */
static int device_open_monitor(struct supervisor *s)
{
	bool has_udev = access("/run/udev/control", F_OK) == 0;
	_cleanup_(udev_unrefp) struct udev *udev = udev_new();
	int r;

	if (!udev)
		return -ENOMEM;
	s->device.monitor = udev_monitor_new_from_netlink(udev, has_udev ? "udev" : "kernel");
	if (!s->device.monitor)
		return errno ? -errno : -EIO;
	r = udev_monitor_filter_add_match_subsystem_devtype(s->device.monitor, "block", NULL);
	if (r >= 0)
		r = udev_monitor_enable_receiving(s->device.monitor);
	if (r >= 0)
		r = sd_event_add_io(s->event, &s->device.source,
				    udev_monitor_get_fd(s->device.monitor), EPOLLIN,
				    device_on_event, s);
	return r;
}

void device_watch(struct supervisor *s)
{
	struct stat st;
	int r;

	if (fstat(s->image_fd, &st) < 0 || !S_ISBLK(st.st_mode))
		return;
	s->device.number = st.st_rdev;
	r = ioctl(s->image_fd, BLKGETSIZE64, &s->device.size) < 0 ? -errno : 0;
	if (r == 0)
		r = device_open_monitor(s);
	if (r >= 0)
		return;
	device_finish(s);
	log_msg(LOG_WARNING, "%s: nobody will tell when it gets another size or goes away: %s",
		s->image, strerrordesc_np(-r) ?: "?");
}

void device_finish(struct supervisor *s)
{
	s->device.source = sd_event_source_disable_unref(s->device.source);
	s->device.monitor = udev_monitor_unref(s->device.monitor);
}
