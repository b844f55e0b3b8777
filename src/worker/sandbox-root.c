/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

enum {
	SANDBOX_NAMESPACES = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
};

/*
 * pivot_root(2) needs a root directory that is a mount with a parent: not so in a chroot of a plain
 * directory (then no line of the table has "/" as its point), nor on the initial ramfs (then
 * the mount is its own parent).
 */
static bool sandbox_root_exchangeable(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	bool found = false;
	size_t size = 0;

	while (f && getline(&line, &size, f) >= 0) {
		unsigned id, parent;
		int end = 0;

		if (sscanf(line, "%u %u %*s %*s %n", &id, &parent, &end) == 2 && end > 0 &&
		    strncmp(line + end, "/ ", 2) == 0)
			found = id != parent;
	}
	return found;
}

static int sandbox_write_file(const char *path, const char *text, struct diag *diag)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : io_write(fd, text, strlen(text));

	return r < 0 ? diag_errno(diag, r, "%s", path) : 0;
}

/* In the new user namespace we are still who we were, and nobody else. */
static int sandbox_map_ids(uid_t uid, gid_t gid, struct diag *diag)
{
	char map[64];
	int r;

	snprintf(map, sizeof(map), "%u %u 1\n", uid, uid);
	r = sandbox_write_file("/proc/self/uid_map", map, diag);
	if (r >= 0)
		r = sandbox_write_file("/proc/self/setgroups", "deny", diag);
	if (r < 0)
		return r;
	snprintf(map, sizeof(map), "%u %u 1\n", gid, gid);
	return sandbox_write_file("/proc/self/gid_map", map, diag);
}

/*
 * An empty file system becomes the root, and the tree of mounts that we were given a copy of goes.
 * That it goes matters beyond safety: the copy holds the export's own mount, which could
 * otherwise never end.
 */
static int sandbox_empty_root(struct diag *diag)
{
	/* Nothing of ours gets out; what is unmounted outside goes here too */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return diag_errno(diag, -errno, "making the mounts private");
	/* Any directory that is sure to exist will do */
	if (mount("fuseimg-worker", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "mode=555") < 0)
		return diag_errno(diag, -errno, "mounting an empty root");
	if (chdir("/proc") < 0)
		return diag_errno(diag, -errno, "entering the empty root");
	/* Old and new in one place: the old root then covers the new one, until it is detached */
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return diag_errno(diag, -errno, "pivot_root");
	if (umount2(".", MNT_DETACH) < 0)
		return diag_errno(diag, -errno, "detaching the old root");
	if (chdir("/") < 0)
		return diag_errno(diag, -errno, "entering the empty root");
	return 0;
}

int sandbox_root_enter(bool user, struct diag *diag)
{
	bool exchange = sandbox_root_exchangeable();
	int flags = SANDBOX_NAMESPACES | (exchange ? CLONE_NEWNS : 0) | (user ? CLONE_NEWUSER : 0);
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r = 0;

	if (unshare(flags) < 0)
		return diag_errno(diag, -errno, "namespaces");
	if (user)
		r = sandbox_map_ids(uid, gid, diag);
	if (r < 0)
		return r;
	return exchange ? sandbox_empty_root(diag) : SANDBOX_LACKS_ROOT;
}
