/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/registry-dir.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

static const char registry_lock_name[] = ".lock";

static void registry_dirs_add(struct registry_dirs *dirs, const char *format, const char *arg)
{
	char *path = dirs->path[dirs->n];

	assert(dirs->n < REGISTRY_DIRS_MAX);
	if (snprintf(path, PATH_MAX, format, arg) >= PATH_MAX)
		return;
	for (size_t i = 0; i < dirs->n; i++)
		if (strcmp(dirs->path[i], path) == 0)
			return;
	dirs->n++;
}

/* An ordinary user may come from a login session or from cron: entries of either are found by both.
 */
void registry_dirs_init(struct registry_dirs *dirs)
{
	const char *override = getenv("FUSEIMG_RUNTIME_DIR"), *session = getenv("XDG_RUNTIME_DIR");
	char uid[16];

	dirs->n = 0;
	if (override && *override == '/') {
		registry_dirs_add(dirs, "%s/exports", override);
		return;
	}
	if (geteuid() != 0) {
		snprintf(uid, sizeof(uid), "%u", geteuid());
		if (session && *session == '/')
			registry_dirs_add(dirs, "%s/fuseimg/exports", session);
		if (faccessat(AT_FDCWD, "/run/user", X_OK, AT_EACCESS) == 0)
			registry_dirs_add(dirs, "/run/user/%s/fuseimg/exports", uid);
		registry_dirs_add(dirs, "/tmp/fuseimg-%s/exports", uid);
	}
	registry_dirs_add(dirs, "%s", "/run/fuseimg/exports");
}

int registry_dir_open(const char *path, int *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & (S_IWGRP | S_IWOTH)))
		return -EPERM;
	*ret = TAKE_FD(fd);
	return 0;
}

/* The service, which runs with a narrow umask, makes it as wide as others do. */
static int registry_dir_make_one(const char *path, mode_t mode)
{
	if (mkdir(path, mode) < 0)
		return errno == EEXIST ? 0 : -errno;
	return chmod(path, mode) < 0 ? -errno : 0;
}

/* Makes path and its parent. Root's are for all to read: `mount` shows as much. */
static int registry_dir_make(const char *path)
{
	mode_t mode = geteuid() == 0 ? 0755 : 0700;
	char parent[PATH_MAX];
	struct stat st;
	int r;

	snprintf(parent, sizeof(parent), "%s", path);
	*strrchr(parent, '/') = '\0';
	r = registry_dir_make_one(parent, mode);
	if (r < 0)
		return r;
	/* Below /tmp somebody else may have been first */
	if (lstat(parent, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
		return -EPERM;
	return registry_dir_make_one(path, mode);
}

int registry_dir_own(struct registry_dirs *dirs, const char **ret_path, int *ret, struct diag *diag)
{
	int r = -ENOENT;

	for (size_t i = 0; i < dirs->n; i++) {
		r = registry_dir_make(dirs->path[i]);
		if (r == 0)
			r = registry_dir_open(dirs->path[i], ret);
		if (r == 0) {
			*ret_path = dirs->path[i];
			return 0;
		}
	}
	return diag_errno(diag, r, "Cannot use %s for the list of exports", dirs->path[0]);
}

int registry_dir_lock(int dir_fd, int *ret)
{
	_cleanup_close_ int fd =
		openat(dir_fd, registry_lock_name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return -errno;
	*ret = TAKE_FD(fd);
	return 0;
}
