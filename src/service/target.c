/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/mounts.h"
#include "service/registry.h"
#include "session/session.h"

enum {
	TARGET_PROBE_MS = 2000,	 /* a daemon that takes longer is alive, only busy */
	TARGET_KILLED_MS = 200,	 /* from SIGKILL to the end of whoever can be killed */
	TARGET_STALE_MAX = 16,	 /* dead mounts on top of each other that are taken away */
	TARGET_ENDING_MS = 5000, /* for a worker to find out that its supervisor was killed */
	TARGET_PAUSE_MS = 50,
};

/*
 * The real path of what name leads to, without a request to the file system there: O_PATH only
 * walks, and /proc knows where it arrived. (realpath(3) may ask.)
 */
static int target_resolve(const char *name, int *ret_fd, char **ret_path, struct diag *diag)
{
	_cleanup_close_ int fd = open(name, O_PATH | O_CLOEXEC);
	char link[64], path[PATH_MAX];
	ssize_t n;

	if (fd < 0 && errno == ENOENT)
		return diag_set(diag, -ENOENT,
				"%s: there is no such file or directory; create an empty one of "
				"either kind to mount on",
				name);
	if (fd < 0)
		return diag_errno(diag, -errno, "%s", name);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return diag_errno(diag, -errno, "%s", name);
	path[n] = '\0';
	*ret_path = strdup(path);
	if (!*ret_path)
		return diag_errno(diag, -ENOMEM, "%s", name);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/*
 * Does the export at path answer that nobody serves it? Asked in a child, since one that is served
 * badly may not answer at all. When its question was in the hands of a worker that died, not even
 * SIGKILL ends the child before somebody answers: then it is left behind.
 */
static bool target_is_stale(const char *path)
{
	_cleanup_close_ int pidfd = -1;
	struct pollfd p = {.events = POLLIN};
	struct statfs fs;
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return false;
	if (pid == 0) {
		(void)close_range(0, ~0U, 0); /* nobody is to wait for what it holds */
		/* ECONNABORTED: the connection ended while this waited for its answer */
		_exit(statfs(path, &fs) < 0 && (errno == ENOTCONN || errno == ECONNABORTED));
	}
	p.fd = pidfd = pidfd_open(pid, 0);
	if (pidfd < 0 || poll(&p, 1, TARGET_PROBE_MS) != 1) {
		kill(pid, SIGKILL);
		if (pidfd >= 0 && poll(&p, 1, TARGET_KILLED_MS) != 1)
			return false;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

/* Is there a supervisor whose export stands at path, as far as can be seen from here? */
static bool target_is_owned(const char *path)
{
	struct registry_watch *owner = NULL;
	bool owned = registry_watch(path, &owner, NULL) < 0 || owner;

	registry_watch_free(owner);
	return owned;
}

static uint64_t target_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Nobody serves the export at path, or somebody who has lost his supervisor, and ends. */
static bool target_is_dead(const char *path)
{
	uint64_t end = target_now_ms() + TARGET_ENDING_MS;

	while (!target_is_stale(path)) {
		if (target_is_owned(path) || target_now_ms() >= end)
			return false;
		poll(NULL, 0, TARGET_PAUSE_MS);
	}
	return true;
}

/* Takes away the topmost mount at path, which nobody serves. */
static int target_unmount_stale(const char *path, bool *ret_detached, struct diag *diag)
{
	int r = session_unmount(path);

	if (r == -EBUSY && umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
		*ret_detached = true;
		return 0;
	}
	if (r < 0)
		return diag_errno(diag, r,
				  "%s: an export whose program is gone cannot be taken away", path);
	return 0;
}

int target_clean(const char *path, bool *ret_cleaned, bool *ret_detached, struct diag *diag)
{
	for (int i = 0; i < TARGET_STALE_MAX; i++) {
		_cleanup_(mounts_done) struct mounts m = {0};
		const struct mounts_entry *e;
		int r = mounts_read(&m);

		if (r < 0)
			return diag_errno(diag, r, "/proc/self/mountinfo");
		e = mounts_at(&m, path);
		if (!e || strcmp(e->type, MOUNTS_OURS) != 0)
			return 0;
		if (!target_is_dead(path))
			return diag_set(diag, -EBUSY,
					"%s is in use: %s is mounted there (fuseimg umount %s "
					"ends that)",
					path, e->source, path);
		r = target_unmount_stale(path, ret_detached, diag);
		if (r < 0)
			return r;
		*ret_cleaned = true;
	}
	return diag_set(diag, -EBUSY, "%s: too many dead mounts on top of each other", path);
}

static int target_check_empty(const char *path, struct diag *diag)
{
	DIR *dir = opendir(path);
	const struct dirent *e;
	int r = 0;

	if (!dir)
		return diag_errno(diag, -errno, "%s", path);
	while (r == 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = diag_set(diag, -ENOTEMPTY,
				     "%s is not empty: mounting there would hide what is in it",
				     path);
	closedir(dir);
	return r;
}

/* What stands there: an empty directory or an empty regular file, and not the image. */
static int target_check_kind(const char *path, int fd, int image_fd, bool *ret_directory,
			     struct diag *diag)
{
	struct statx there;
	struct stat image;

	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &there) < 0 ||
	    fstat(image_fd, &image) < 0)
		return diag_errno(diag, -errno, "%s", path);
	if (there.stx_ino == image.st_ino && there.stx_dev_major == major(image.st_dev) &&
	    there.stx_dev_minor == minor(image.st_dev))
		return diag_set(diag, -EINVAL, "%s is the image itself; mount on another file",
				path);
	if (S_ISDIR(there.stx_mode)) {
		*ret_directory = true;
		return target_check_empty(path, diag);
	}
	if (!S_ISREG(there.stx_mode))
		return diag_set(diag, -EINVAL, "%s is neither a directory nor a regular file",
				path);
	if (there.stx_size > 0)
		return diag_set(diag, -ENOTEMPTY,
				"%s is not empty: mounting there would hide its %llu bytes", path,
				(unsigned long long)there.stx_size);
	*ret_directory = false;
	return 0;
}

static int target_make_one(const char *path, struct diag *diag)
{
	if (mkdir(path, 0755) == 0)
		return chmod(path, 0755) < 0 ? diag_errno(diag, -errno, "%s", path) : 0; /* umask */
	return errno == EEXIST ? 0 : diag_errno(diag, -errno, "%s: cannot be made", path);
}

int target_make(const char *path, struct diag *diag)
{
	_cleanup_free_ char *parent = strdup(path);
	char *slash = parent ? strrchr(parent, '/') : NULL;
	int r = 0;

	if (!parent)
		return diag_errno(diag, -ENOMEM, "%s", path);
	if (slash && slash != parent) {
		*slash = '\0';
		r = target_make_one(parent, diag);
	}
	return r < 0 ? r : target_make_one(path, diag);
}

int target_check(const char *name, int image_fd, struct target *ret, bool *ret_cleaned,
		 struct diag *diag)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	bool cleaned = false, detached = false, directory = false;
	int r;

	r = target_resolve(name, &fd, &path, diag);
	if (r < 0)
		return r;
	close(TAKE_FD(fd)); /* it could stand in the way of an unmount */
	r = target_clean(path, &cleaned, &detached, diag);
	if (r < 0)
		return r;
	free(TAKE_PTR(path));
	r = target_resolve(name, &fd, &path, diag);
	if (r < 0)
		return r;
	r = target_check_kind(path, fd, image_fd, &directory, diag);
	if (r < 0)
		return r;
	*ret = (struct target){.path = TAKE_PTR(path), .directory = directory};
	*ret_cleaned = cleaned;
	return 0;
}

void target_done(struct target *t)
{
	free(t->path);
	t->path = NULL;
}
