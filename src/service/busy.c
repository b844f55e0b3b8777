/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/busy.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/diag.h"
#include "base/io.h"
#include "base/mounts.h"
#include "service/loops.h"

DEFINE_CLEANUP(DIR *, closedir);
#define _cleanup_closedir_ _cleanup_(closedirp)

enum {
	BUSY_SHOWN_MAX = 8, /* more than a person wants to read in one line */
};

struct busy {
	const char *target;
	struct mounts mounts;
	char *buf;
	size_t size, len;
	unsigned found, shown;
};

static void busy_add(struct busy *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void busy_add(struct busy *b, const char *fmt, ...)
{
	char text[PATH_MAX + 128];
	va_list ap;
	int n;

	b->found++;
	if (b->shown == BUSY_SHOWN_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	n = snprintf(NULL, 0, "%s%s", b->shown ? ", " : "", text);
	if (n < 0 || b->len + (size_t)n + 1 > b->size)
		return;
	snprintf(b->buf + b->len, b->size - b->len, "%s%s", b->shown ? ", " : "", text);
	b->len += (size_t)n;
	b->shown++;
}

static void busy_add_loop(struct busy *b, const char *loop)
{
	for (size_t i = 0; i < b->mounts.n; i++)
		if (loops_is_device(b->mounts.entries[i].source, loop)) {
			busy_add(b, "/dev/%s (mounted on %s)", loop, b->mounts.entries[i].point);
			return;
		}
	busy_add(b, "/dev/%s", loop);
}

static void busy_find_loops(struct busy *b)
{
	_cleanup_(loops_done) struct loops loops;

	loops_find(b->target, &loops);
	for (size_t i = 0; i < loops.n; i++)
		busy_add_loop(b, loops.names[i]);
}

static void busy_find_mounts(struct busy *b)
{
	for (size_t i = 0; i < b->mounts.n; i++) {
		const char *point = b->mounts.entries[i].point;

		if (loops_path_inside(point, b->target) && strcmp(point, b->target) != 0)
			busy_add(b, "a mount on %s", point);
	}
}

/* Does the link of this name in dir_fd lead into the export? Reading a link of /proc only prints
 * the path, it does not go there. */
static bool busy_link_inside(const struct busy *b, int dir_fd, const char *name)
{
	char path[PATH_MAX];
	ssize_t n = readlinkat(dir_fd, name, path, sizeof(path) - 1);

	if (n < 0)
		return false;
	path[n] = '\0';
	return loops_path_inside(path, b->target);
}

/* The same for all links in a directory of dir_fd. */
static bool busy_any_link_inside(const struct busy *b, int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *links = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	if (fd >= 0 && !links)
		close(fd);
	while (links && (e = readdir(links)))
		if (busy_link_inside(b, dirfd(links), e->d_name))
			return true;
	return false;
}

static bool busy_process_inside(const struct busy *b, int proc_fd)
{
	return busy_link_inside(b, proc_fd, "cwd") || busy_link_inside(b, proc_fd, "root") ||
	       busy_any_link_inside(b, proc_fd, "fd") ||
	       busy_any_link_inside(b, proc_fd, "map_files"); /* mapped, the fd closed */
}

static void busy_find_processes(struct busy *b)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	const struct dirent *e;

	while (dir && (e = readdir(dir))) {
		_cleanup_close_ int proc = -1;
		_cleanup_free_ char *comm = NULL;
		char shown[64];

		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		proc = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (proc < 0 || !busy_process_inside(b, proc))
			continue;
		if (io_read_file(proc, "comm", 256, &comm, NULL) < 0)
			continue;
		diag_quote(shown, sizeof(shown), comm, strcspn(comm, "\n"));
		busy_add(b, "%s (pid %s)", shown, e->d_name);
	}
}

static unsigned busy_find(const char *target, bool processes, char *buf, size_t size)
{
	struct busy b = {.target = target, .buf = buf, .size = size};

	if (size)
		buf[0] = '\0';
	/* Without the table we still know the loop devices, not where they are mounted */
	(void)mounts_read(&b.mounts);
	busy_find_loops(&b);
	busy_find_mounts(&b);
	if (processes)
		busy_find_processes(&b);
	mounts_done(&b.mounts);
	if (b.found > b.shown && b.len < size)
		snprintf(buf + b.len, size - b.len, "%sand %u more", b.shown ? " " : "",
			 b.found - b.shown);
	return b.found;
}

unsigned busy_describe(const char *target, char *buf, size_t size)
{
	return busy_find(target, true, buf, size);
}

unsigned busy_describe_devices(const char *target, char *buf, size_t size)
{
	return busy_find(target, false, buf, size);
}
