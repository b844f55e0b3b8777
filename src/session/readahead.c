/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session/mount.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/mounts.h"

void mount_raise_readahead(const char *target, uint32_t bytes)
{
	_cleanup_(mounts_done) struct mounts mounts = {0};
	_cleanup_close_ int fd = -1;
	const struct mounts_entry *e;
	char text[64];
	int n;

	/* Not by stat(2): that would ask the file system itself, which nobody serves yet */
	if (mounts_read(&mounts) < 0)
		return;
	e = mounts_at(&mounts, target);
	if (!e)
		return;
	snprintf(text, sizeof(text), "/sys/class/bdi/%u:%u/read_ahead_kb", major(e->dev),
		 minor(e->dev));
	fd = open(text, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = snprintf(text, sizeof(text), "%u\n", bytes / 1024);
	(void)io_write(fd, text, (size_t)n);
}
