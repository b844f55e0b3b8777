/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/mounts.h"
#include "base/unit-name.h"
#include "service/loops.h"
#include "service/systemctl.h"

enum {
	SWEEP_ANSWER_MAX = 64,
};

static bool sweep_is_time(void)
{
	static const char *const words[] = {"is-system-running", NULL};
	char answer[SWEEP_ANSWER_MAX];

	systemctl_ask(words, answer, sizeof(answer));
	return strcmp(answer, "stopping") == 0;
}

/* Is systemd about to unmount it? */
static bool sweep_has_job(const char *point)
{
	char unit[UNIT_NAME_SIZE], answer[SWEEP_ANSWER_MAX];

	if (unit_name_from_path(point, ".mount", unit) < 0)
		return false;
	systemctl_show(unit, "Job", answer, sizeof(answer));
	return answer[0] && strcmp(answer, "0") != 0;
}

static bool sweep_unmount(const char *point, const char *source)
{
	if (sweep_has_job(point))
		return false;
	if (umount2(point, UMOUNT_NOFOLLOW) < 0) {
		log_msg(LOG_NOTICE, "%s: %s, before the machine goes down", point,
			strerrordesc_np(errno) ?: "?");
		return false;
	}
	log_msg(LOG_NOTICE, "%s (%s): unmounted, before the machine goes down", point, source);
	return true;
}

/* Its file systems, the last mounted first. False: one of them is still there. */
static bool sweep_mounts(const char *name, const struct mounts *m)
{
	bool all = true;

	for (size_t i = m->n; i > 0; i--) {
		const struct mounts_entry *e = &m->entries[i - 1];

		if (loops_is_device(e->source, name) && !sweep_unmount(e->point, e->source))
			all = false;
	}
	return all;
}

/* One that goes with its last user, as that of mount(8) does, is gone by now. On one that is still
 * open elsewhere the kernel waits for that user. */
static void sweep_loop(const char *name)
{
	_cleanup_close_ int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/dev/%.32s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0 || ioctl(fd, LOOP_CLR_FD) < 0)
		return;
	log_msg(LOG_NOTICE, "%s: detached, before the machine goes down", path);
}

void sweep(const char *target)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	_cleanup_(loops_done) struct loops loops;

	loops_find(target, &loops);
	if (loops.n == 0 || !sweep_is_time() || mounts_read(&m) < 0)
		return;
	for (size_t i = 0; i < loops.n; i++)
		if (sweep_mounts(loops.names[i], &m))
			sweep_loop(loops.names[i]);
}
