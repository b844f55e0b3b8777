/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/progress.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/io.h"

enum {
	PROGRESS_FILE_MAX = 4096,
};

/* User and system time of all threads, fields 14 and 15 of proc(5)'s stat. */
static uint64_t progress_ticks(pid_t pid)
{
	_cleanup_free_ char *text = NULL;
	uint64_t user = 0, system = 0;
	const char *p;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (io_read_file(AT_FDCWD, path, PROGRESS_FILE_MAX, &text, NULL) < 0)
		return 0;
	p = strrchr(text, ')'); /* the name of the program may hold anything */
	if (!p || sscanf(p, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64,
			 &user, &system) != 2)
		return 0;
	return user + system;
}

/* Sectors written by the block device below the file, field 7 of its stat (the kernel's
 * Documentation/block/stat.rst). */
static uint64_t progress_sectors(int fd)
{
	_cleanup_free_ char *text = NULL;
	uint64_t sectors = 0;
	struct statx st;
	char path[64];
	bool device;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) < 0)
		return 0;
	device = S_ISBLK(st.stx_mode);
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/stat",
		 device ? st.stx_rdev_major : st.stx_dev_major,
		 device ? st.stx_rdev_minor : st.stx_dev_minor);
	if (io_read_file(AT_FDCWD, path, PROGRESS_FILE_MAX, &text, NULL) < 0 ||
	    sscanf(text, "%*u %*u %*u %*u %*u %*u %" SCNu64, &sectors) != 1)
		return 0;
	return sectors;
}

void progress_sample(pid_t pid, int fd, struct progress_sample *ret)
{
	*ret = (struct progress_sample){};
	if (pid > 0)
		ret->ticks = progress_ticks(pid);
	if (fd >= 0)
		ret->sectors = progress_sectors(fd);
}

bool progress_note(struct progress *p, const struct progress_sample *sample, uint64_t now_us,
		   uint64_t patience_us)
{
	if (p->moved_us == 0 || p->requests != sample->requests || p->ticks != sample->ticks ||
	    p->sectors != sample->sectors)
		p->moved_us = now_us;
	p->requests = sample->requests;
	p->ticks = sample->ticks;
	p->sectors = sample->sectors;
	return now_us - p->moved_us <= patience_us;
}
