/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An export ends in two steps. First its mount goes, never lazily, so that nobody who still writes
 * is cut off. Then its supervisor flushes, closes the image and ends; only that means that all is
 * on stable storage, and only then are we done.
 *
 * A mount that nobody serves any more must be looked at without touching it: the mount table and
 * O_PATH do that.
 */

#include "cli/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/output.h"
#include "service/busy.h"
#include "base/mounts.h"
#include "service/registry.h"
#include "session/session.h"

enum {
	/* What was just closed or detached may take a moment to let go (udev looks at a loop
	 * device, the kernel tears it down later): not worth a failure */
	UMOUNT_PATIENCE_MS = 1000,
	UMOUNT_RETRY_MS = 50,
	UMOUNT_QUIET_MS = 1000,	   /* waits shorter than this are nothing to talk about */
	UMOUNT_STATUS_UNKNOWN = 1, /* it is gone; whether all is on stable storage cannot be said */
};

DEFINE_CLEANUP(struct registry_watch *, registry_watch_free);

static int64_t umount_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The real path that name leads to, without a request to the file system there. */
static int umount_resolve(const char *name, char *ret, size_t size, struct diag *diag)
{
	_cleanup_close_ int fd = open(name, O_PATH | O_CLOEXEC);
	char link[64];
	ssize_t n;

	if (fd < 0)
		return diag_errno(diag, -errno, "%s", name);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, size - 1);
	if (n < 0)
		return diag_errno(diag, -errno, "%s", name);
	ret[n] = '\0';
	return 0;
}

/* The export whose image is at path, for those who named it instead of the target. */
static int umount_refuse_image(const char *path, struct diag *diag)
{
	struct registry_entry *entries = NULL;
	int r = 0;
	size_t n = 0;

	if (registry_list(&entries, &n, NULL) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (r == 0 && strcmp(entries[i].image, path) == 0)
			r = diag_set(diag, -EINVAL,
				     "%s is an image; it is mounted at %s: fuseimg umount %s", path,
				     entries[i].target, entries[i].target);
		registry_entry_done(&entries[i]);
	}
	free(entries);
	return r;
}

/* The export that path is a part of. */
static int umount_refuse_inside(const struct mounts *mounts, const char *path, struct diag *diag)
{
	for (size_t i = 0; i < mounts->n; i++) {
		const char *point = mounts->entries[i].point;
		size_t len = strlen(point);

		if (strcmp(mounts->entries[i].type, MOUNTS_OURS) == 0 &&
		    strncmp(path, point, len) == 0 && path[len] == '/')
			return diag_set(diag, -EINVAL, "%s is part of an export: fuseimg umount %s",
					path, point);
	}
	return 0;
}

/* Says what path is, when it is not an export. */
static int umount_refuse(const struct mounts *mounts, const struct mounts_entry *e,
			 const char *path, struct diag *diag)
{
	int r = e ? 0 : umount_refuse_inside(mounts, path, diag);

	if (r == 0 && !e)
		r = umount_refuse_image(path, diag);
	if (r < 0)
		return r;
	if (e)
		return diag_set(diag, -EINVAL, "%s is not ours: %s is mounted there, of type %s",
				path, e->source, e->type);
	return diag_set(diag, -EINVAL, "Nothing is mounted at %s", path);
}

static int umount_busy(const char *path, struct diag *diag)
{
	char who[DIAG_MAX / 2];

	if (busy_describe(path, who, sizeof(who)) > 0)
		return diag_set(diag, -EBUSY, "%s is in use by %s", path, who);
	return diag_set(diag, -EBUSY, "%s is in use%s", path,
			geteuid() == 0 ? "" : "; root can see by whom");
}

static bool umount_is_there(const char *path)
{
	_cleanup_(mounts_done) struct mounts mounts = {};
	const struct mounts_entry *e;

	if (mounts_read(&mounts) < 0)
		return true;
	e = mounts_at(&mounts, path);
	return e && strcmp(e->type, MOUNTS_OURS) == 0;
}

/* Takes the mount away; what is in use now may be free before the deadline. */
static int umount_detach(const char *path, int64_t deadline, struct diag *diag)
{
	int r;

	while ((r = session_unmount(path)) == -EBUSY && umount_now_ms() < deadline)
		usleep(UMOUNT_RETRY_MS * 1000);
	if (r == -EBUSY)
		return umount_busy(path, diag);
	/* fusermount3 cannot say more than that it failed */
	if (r < 0 && geteuid() != 0 && umount_is_there(path))
		return diag_set(diag, -EPERM,
				"%s: only root and the user who mounted it can unmount it", path);
	return r < 0 ? diag_errno(diag, r, "Cannot unmount %s", path) : 0;
}

/* Nobody serves the mount, and nobody will: those who stand in it lose nothing more. 1. */
static int umount_stale(const char *path, const char *image, struct diag *diag)
{
	int r = umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;

	if (r == -EPERM)
		r = session_unmount(path);
	if (r == -EBUSY)
		return umount_busy(path, diag);
	if (r < 0)
		return diag_errno(diag, r, "Cannot unmount %s, which nobody serves any more", path);
	fprintf(stderr,
		"fuseimg: nobody served %s any more; the dead mount is gone, the last "
		"writes to %s may be lost\n",
		path, image);
	return 1;
}

static bool umount_is_stale(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) < 0 && errno == ENOTCONN;
}

/* What is also mounted at another place goes on when e has gone: a bind mount. */
static int umount_refuse_wait(const struct mounts_entry *e, struct diag *diag)
{
	_cleanup_(mounts_done) struct mounts mounts = {};
	const struct mounts_entry *other;

	if (mounts_read(&mounts) < 0)
		return 0;
	other = mounts_of(&mounts, e->dev, e->source);
	if (!other)
		return 0;
	return diag_set(diag, -EBUSY,
			"%s is unmounted, but the same export also stands at %s: fuseimg umount %s",
			e->point, other->point, other->point);
}

/* Until all is on stable storage; deadline 0: however long that takes. */
static int umount_wait(struct registry_watch *w, const struct mounts_entry *e, int64_t deadline,
		       struct diag *diag)
{
	int left = deadline ? (int)(deadline - umount_now_ms()) : -1;
	bool tell = isatty(STDERR_FILENO);
	int r;

	if (deadline && left < 0)
		left = 0;
	r = registry_wait(w, left < 0 || left > UMOUNT_QUIET_MS ? UMOUNT_QUIET_MS : left, diag);
	if (r != -ETIME)
		return r;
	r = umount_refuse_wait(e, diag);
	if (r < 0)
		return r;
	r = -ETIME;
	if (left < 0 || left > UMOUNT_QUIET_MS) {
		if (tell)
			fprintf(stderr, "Unmounted. Writing what is left to %s ...", e->source);
		r = registry_wait(w, left < 0 ? -1 : left - UMOUNT_QUIET_MS, diag);
		if (tell)
			fprintf(stderr, r < 0 ? "\n" : " done\n");
	}
	if (r == -ETIME)
		return diag_set(diag, r,
				"Unmounted, but not all is on stable storage yet: the process that "
				"serves %s goes on writing, or another mount namespace uses it",
				e->source);
	return r;
}

/* Watches the export whose directory was renamed, so that its own name for the target leads
 * elsewhere: the one of this image whose target is not mounted. */
static int umount_watch_moved(const struct mounts *mounts, const char *image,
			      struct registry_watch **ret, struct diag *diag)
{
	struct registry_entry *entries = NULL;
	const char *target = NULL;
	size_t n = 0, found = 0;
	int r = registry_list(&entries, &n, diag);

	for (size_t i = 0; i < n; i++)
		if (strcmp(entries[i].image, image) == 0 && !mounts_at(mounts, entries[i].target)) {
			target = entries[i].target;
			found++;
		}
	if (found == 1)
		r = registry_watch(target, ret, diag);
	for (size_t i = 0; i < n; i++)
		registry_entry_done(&entries[i]);
	free(entries);
	return r;
}

/* 0: all is on stable storage. 1: the mount is gone, but that much cannot be said (it was here). */
static int umount_export(struct command *c, const struct mounts *mounts,
			 const struct mounts_entry *e, struct diag *diag)
{
	_cleanup_(registry_watch_freep) struct registry_watch *watch = NULL;
	const char *path = e->point, *image = e->source;
	int64_t now = umount_now_ms();
	int r = registry_watch(path, &watch, diag);

	if (r == 0 && !watch)
		r = umount_watch_moved(mounts, image, &watch, diag);
	if (r < 0)
		return r;
	if (!watch && umount_is_stale(path))
		return umount_stale(path, image, diag);
	r = umount_detach(path, now + (c->timeout_ms < 0 ? UMOUNT_PATIENCE_MS : c->timeout_ms),
			  diag);
	if (r < 0)
		return r;
	if (watch)
		return umount_wait(watch, e, c->timeout_ms < 0 ? 0 : now + c->timeout_ms, diag);
	fprintf(stderr,
		"fuseimg: unmounted; who served %s is not known (another user's process, or one "
		"that was just killed), so the last writes to %s may be lost\n",
		path, image);
	return 1;
}

int verb_umount(struct command *c, struct diag *diag)
{
	_cleanup_(mounts_done) struct mounts mounts = {};
	const struct mounts_entry *e;
	char path[PATH_MAX];
	int r = umount_resolve(c->words[0], path, sizeof(path), diag);

	if (r < 0)
		return r;
	/* It may be the target that we stand in: that must not be what keeps it busy */
	if (chdir("/") < 0)
		return diag_errno(diag, -errno, "/");
	r = mounts_read(&mounts);
	if (r < 0)
		return diag_errno(diag, r, "Cannot read /proc/self/mountinfo");
	e = mounts_at(&mounts, path);
	if (!e || strcmp(e->type, MOUNTS_OURS) != 0)
		return umount_refuse(&mounts, e, path, diag);
	r = umount_export(c, &mounts, e, diag);
	if (r == 0 && (c->verbose || output_is_terminal())) {
		output_name(path);
		puts(" is unmounted, everything is on stable storage");
	}
	if (r > 0)
		c->status = UMOUNT_STATUS_UNKNOWN;
	return r < 0 ? r : 0;
}
