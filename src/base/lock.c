/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/setting.h"

enum {
	LOCK_HELD = 100,     /* + bit: I have this permission */
	LOCK_UNSHARED = 200, /* + bit: nobody else may have it */
	LOCK_PERM_READ = 1 << 0,
	LOCK_PERM_WRITE = 1 << 1,
	LOCK_PERM_RESIZE = 1 << 3,
	LOCK_BITS = 4,
	LOCK_TRIES = 6,
	LOCK_PAUSE_US = 100 * 1000,
	LOCK_LOOKUP_TRIES = 100, /* after so many, who holds it is looked up again */
	LOCK_FDINFO_MAX = 64 << 10,
};

static struct flock lock_byte(int byte, short type)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

/* Shared locks on base + bit for each bit of mask. */
static int lock_take(int fd, int base, unsigned mask)
{
	for (int bit = 0; bit < LOCK_BITS; bit++) {
		struct flock fl = lock_byte(base + bit, F_RDLCK);

		if ((mask & (1U << bit)) && fcntl(fd, F_OFD_SETLK, &fl) < 0)
			return -errno;
	}
	return 0;
}

static void lock_drop(int fd)
{
	struct flock fl = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = LOCK_HELD};

	fl.l_len = LOCK_UNSHARED + LOCK_BITS - LOCK_HELD;
	(void)fcntl(fd, F_OFD_SETLK, &fl);
}

/* -EBUSY when somebody else has a lock on base + bit for any bit of mask. */
static int lock_probe(int fd, int base, unsigned mask)
{
	for (int bit = 0; bit < LOCK_BITS; bit++) {
		struct flock fl = lock_byte(base + bit, F_WRLCK);

		if (!(mask & (1U << bit)))
			continue;
		if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
			return -errno;
		if (fl.l_type != F_UNLCK)
			return -EBUSY;
	}
	return 0;
}

/* Does fdinfo of the descriptor show a lock? Where it cannot be read, none is seen. */
static bool lock_is_held(const char *pid, const char *fd)
{
	_cleanup_free_ char *text = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%.16s/fdinfo/%.16s", pid, fd);
	return io_read_file(AT_FDCWD, path, LOCK_FDINFO_MAX, &text, NULL) == 0 &&
	       strstr(text, "\nlock:");
}

/* Does /proc/PID/fd hold the file, and (if asked) a lock on it? Links are read, never followed: one
 * may lead into a mount of ours that nobody serves at this moment. */
static bool lock_process_has(const char *pid, const char *path, bool locked)
{
	char dir_name[32], target[4096];
	struct dirent *e;
	bool found = false;
	DIR *dir;

	snprintf(dir_name, sizeof(dir_name), "/proc/%.16s/fd", pid);
	dir = opendir(dir_name);
	while (dir && !found && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		if (n > 0) {
			target[n] = '\0';
			found = strcmp(target, path) == 0 &&
				(!locked || lock_is_held(pid, e->d_name));
		}
	}
	if (dir)
		closedir(dir);
	return found;
}

/*
 * " (PID 123, qemu-system-x86)" for the first other process that has the file open, or "". A
 * service manager only keeps it for one of its services (FileDescriptorStoreMax=): nobody is to
 * stop that, so it is named where nobody else has the file.
 */
static void lock_find_holder(const char *path, bool locked, char *dst, size_t dst_size)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	bool found = false;

	dst[0] = '\0';
	while (proc && !found && (e = readdir(proc))) {
		_cleanup_free_ char *comm = NULL;
		char name[64], quoted[64];

		if (!isdigit((unsigned char)e->d_name[0]) || atoi(e->d_name) == getpid() ||
		    !lock_process_has(e->d_name, path, locked))
			continue;
		snprintf(name, sizeof(name), "/proc/%.16s/comm", e->d_name);
		if (io_read_file(AT_FDCWD, name, 4096, &comm, NULL) < 0)
			continue;
		comm[strcspn(comm, "\n")] = '\0';
		found = strcmp(comm, "systemd") != 0;
		if (found || !dst[0])
			snprintf(dst, dst_size, " (PID %.16s, %s)", e->d_name,
				 diag_quote(quoted, sizeof(quoted), comm, strlen(comm)));
	}
	if (proc)
		closedir(proc);
}

/* Who has a lock; where such details are hidden from us, who has the file open. */
static void lock_holder(const char *path, char *dst, size_t dst_size)
{
	lock_find_holder(path, true, dst, dst_size);
	if (!dst[0])
		lock_find_holder(path, false, dst, dst_size);
}

static int lock_try(int fd, unsigned held, unsigned unshared)
{
	int r = lock_take(fd, LOCK_HELD, held);

	if (r == 0)
		r = lock_take(fd, LOCK_UNSHARED, unshared);
	if (r == 0)
		r = lock_probe(fd, LOCK_UNSHARED, held);
	if (r == 0)
		r = lock_probe(fd, LOCK_HELD, unshared);
	if (r < 0)
		lock_drop(fd);
	return r;
}

static int lock_busy(const char *path, bool writable, struct diag *diag)
{
	char holder[128];

	lock_holder(path, holder, sizeof(holder));
	return diag_set(diag, -EBUSY, "%s: is in use by another program%s%s", path, holder,
			writable ? "; stop that first" : ", which writes it; stop that first");
}

/* Until the locks are had, or can never be had, or time is up (-EBUSY with its sentence). */
static int lock_persist(int fd, const char *path, bool writable, const struct lock_wait *wait,
			struct diag *diag)
{
	unsigned held = LOCK_PERM_READ | (writable ? LOCK_PERM_WRITE | LOCK_PERM_RESIZE : 0);
	unsigned tries = LOCK_TRIES + wait->seconds * (1000000 / LOCK_PAUSE_US);
	struct diag why = {0};
	int r = 0;

	/* Also without patience: the last user may be on its way out. A worker whose supervisor was
	 * killed finishes what it has in hand */
	for (unsigned i = 0; i < tries; i++) {
		if (i > 0)
			usleep(LOCK_PAUSE_US);
		r = lock_try(fd, held, LOCK_PERM_WRITE | LOCK_PERM_RESIZE);
		if (r != -EBUSY)
			return r;
		if (i + 1 < LOCK_TRIES || !wait->waiting)
			continue;
		if ((i + 1 - LOCK_TRIES) % LOCK_LOOKUP_TRIES == 0)
			lock_busy(path, writable, &why);
		r = wait->waiting(wait->data, why.text);
		if (r < 0)
			return diag_set(diag, r, "%s; no longer waiting", why.text);
	}
	return lock_busy(path, writable, diag);
}

int lock_image_wait(int fd, const char *path, bool writable, const struct lock_wait *wait,
		    struct diag *diag)
{
	struct diag own = {0};
	struct setting without;
	int r = lock_persist(fd, path, writable, wait, &own);

	if (r == 0)
		return 0;
	if (own.text[0])
		return diag_set(diag, r, "%s", own.text);
	if (r == -EINVAL || r == -ENOLCK || r == -ENOSYS)
		return diag_set(diag, -EOPNOTSUPP,
				"%s: its file system has no locks; if nobody else uses the image, "
				"use %s",
				path, setting_place(&without, wait->settings, "lock", "no"));
	if (r == -EAGAIN || r == -EACCES)
		return lock_busy(path, writable, diag);
	return diag_errno(diag, r, "%s: cannot be locked", path);
}

int lock_image(int fd, const char *path, bool writable, struct diag *diag)
{
	return lock_image_wait(fd, path, writable, &(struct lock_wait){}, diag);
}

int lock_move(int from, bool was_writable, int to, const char *path, struct diag *diag)
{
	unsigned unshared = LOCK_PERM_WRITE | LOCK_PERM_RESIZE;
	int r;

	/* What is taken here keeps others away; that nobody else was there is known from `from` */
	r = lock_take(to, LOCK_HELD, LOCK_PERM_READ);
	if (r == 0)
		r = lock_take(to, LOCK_UNSHARED, unshared);
	if (r < 0) {
		lock_drop(to);
		return diag_errno(diag, r, "%s: cannot be locked", path);
	}
	lock_drop(from);
	r = lock_image(to, path, !was_writable, diag);
	if (r < 0)
		(void)lock_image(from, path, was_writable, NULL);
	return r;
}
