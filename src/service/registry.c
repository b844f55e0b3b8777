/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/parse.h"
#include "service/registry-dir.h"

/*
 * An entry is a file of "key=value" strings, each ended by a NUL (as in /proc/PID/environ, so that
 * any path can stand there). The supervisor holds a write lock (OFD) on it from before the file has
 * a name until it exits. Others only ever ask for a read lock: what they may open read-only they
 * cannot block.
 *
 * An orderly end appends error= and message= before the name and the lock go away; those who wait
 * have the file open and read them then. A lock that ends without them was a supervisor that died.
 *
 * Entries appear and leftovers disappear only under the directory's ".lock", which only the owner
 * of the directory can open.
 */

enum {
	REGISTRY_FILE_MAX = 64 << 10,
	REGISTRY_SLICE_MS = 50, /* between looks at the lock where the process cannot be watched */
};

struct registry_own {
	int fd;
	int dir_fd; /* locked: systemd-tmpfiles leaves such a directory alone where /tmp is cleaned
		     */
	char *path;
};

struct registry_watch {
	int fd;
	int pid_fd; /* -1: cannot be had */
};

/* What a file says. */
struct registry_record {
	struct registry_entry entry;
	bool ended; /* error= is there */
	int error;
	char *message;
};

static void registry_record_done(struct registry_record *r)
{
	registry_entry_done(&r->entry);
	free(r->message);
	*r = (struct registry_record){};
}

void registry_entry_done(struct registry_entry *e)
{
	free(e->image);
	free(e->target);
	free(e->format);
	free(e->snapshot);
	free(e->name);
	*e = (struct registry_entry){};
}

/* Entries. */

static bool registry_is_live(int fd)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static int registry_parse_pair(struct registry_record *r, const char *key, const char *value)
{
	const struct {
		const char *key;
		char **text;
	} texts[] = {
		{"image", &r->entry.image},   {"target", &r->entry.target},
		{"format", &r->entry.format}, {"snapshot", &r->entry.snapshot},
		{"name", &r->entry.name},     {"message", &r->message},
	};
	uint64_t v;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (strcmp(key, texts[i].key) == 0) {
			free(*texts[i].text);
			*texts[i].text = strdup(value);
			return *texts[i].text ? 0 : -ENOMEM;
		}
	if (strcmp(key, "size") == 0)
		return parse_u64(value, UINT64_MAX, &r->entry.size);
	if (strcmp(key, "read_only") == 0)
		return parse_bool(value, &r->entry.read_only);
	if (strcmp(key, "pid") == 0 && parse_u64(value, INT_MAX, &v) == 0) {
		r->entry.pid = (pid_t)v;
	} else if (strcmp(key, "error") == 0 && parse_u64(value, 4095, &v) == 0) {
		r->ended = true;
		r->error = -(int)v;
	}
	return 0;
}

/* -EBADMSG: not (yet) an entry. */
static int registry_record_read(int fd, struct registry_record *ret)
{
	_cleanup_(registry_record_done) struct registry_record record = {};
	_cleanup_free_ char *text = malloc(REGISTRY_FILE_MAX + 1);
	ssize_t n;

	if (!text)
		return -ENOMEM;
	n = io_pread(fd, text, REGISTRY_FILE_MAX, 0);
	if (n < 0)
		return (int)n;
	text[n] = '\0';
	for (char *p = text; p < text + n; p += strlen(p) + 1) {
		char *equals = strchr(p, '=');
		int r;

		if (!equals)
			return -EBADMSG;
		*equals = '\0';
		r = registry_parse_pair(&record, p, equals + 1);
		if (r < 0)
			return r == -ENOMEM ? r : -EBADMSG;
		p = equals + 1;
	}
	if (!record.entry.image || !record.entry.target || !record.entry.format)
		return -EBADMSG;
	*ret = record;
	record = (struct registry_record){};
	return 0;
}

/* What may change comes first and is of a fixed width, so that it can be written in place. */
static int registry_changing(const struct registry_entry *e, char *buf, size_t size)
{
	return snprintf(buf, size, "pid=%010d%csize=%020llu%cread_only=%d%c", (int)e->pid, 0,
			(unsigned long long)e->size, 0, e->read_only, 0);
}

static int registry_record_write(int fd, const struct registry_entry *e)
{
	char changing[128];
	int n = registry_changing(e, changing, sizeof(changing));
	int r = io_write(fd, changing, (size_t)n);

	if (r < 0)
		return r;
	n = dprintf(fd, "image=%s%ctarget=%s%cformat=%s%c", e->image, 0, e->target, 0, e->format,
		    0);
	if (n >= 0 && e->snapshot)
		n = dprintf(fd, "snapshot=%s%c", e->snapshot, 0);
	if (n >= 0 && e->name)
		n = dprintf(fd, "name=%s%c", e->name, 0);
	return n < 0 ? -errno : 0;
}

/* Opens an entry that lives. -ENOENT: it does not (a leftover goes away where clean says so). */
static int registry_entry_open(int dir_fd, const char *name, bool clean, int *ret_fd,
			       struct registry_record *ret)
{
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	if (!registry_is_live(fd)) {
		if (clean)
			unlinkat(dir_fd, name, 0);
		return -ENOENT;
	}
	r = registry_record_read(fd, ret);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Calls f for each live entry until it answers other than 0. f may take the fd (leaving -1) and the
 * entry (leaving zeroes). */
typedef int (*registry_visit_fn)(void *data, int *fd, struct registry_entry *e);

static void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

static int registry_visit(int dir_fd, bool clean, registry_visit_fn f, void *data)
{
	int copy = fcntl(dir_fd, F_DUPFD_CLOEXEC, 3);
	_cleanup_(closedirp) DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *de;
	int r = 0;

	if (!d) {
		r = -errno;
		closep(&copy);
		return r;
	}
	rewinddir(d); /* the copy shares dir_fd's position */
	while (r == 0 && (de = readdir(d))) {
		_cleanup_(registry_record_done) struct registry_record record = {};
		_cleanup_close_ int fd = -1;

		if (de->d_name[0] == '.' ||
		    registry_entry_open(dir_fd, de->d_name, clean, &fd, &record) < 0)
			continue;
		r = f(data, &fd, &record.entry);
	}
	return r;
}

/* The same over all directories that the caller may read. */
static int registry_visit_all(registry_visit_fn f, void *data)
{
	_cleanup_free_ struct registry_dirs *dirs = malloc(sizeof(*dirs));
	int r = 0;

	if (!dirs)
		return -ENOMEM;
	registry_dirs_init(dirs);
	for (size_t i = 0; r == 0 && i < dirs->n; i++) {
		_cleanup_close_ int dir_fd = -1, lock_fd = -1;

		if (registry_dir_open(dirs->path[i], &dir_fd) < 0)
			continue;
		r = registry_visit(dir_fd, registry_dir_lock(dir_fd, &lock_fd) == 0, f, data);
	}
	return r;
}

/* The supervisor's side. */

static int registry_same_target(void *data, int *fd, struct registry_entry *e)
{
	struct registry_entry *wanted = data;

	if (strcmp(e->target, wanted->target) != 0)
		return 0;
	*wanted = *e;
	*e = (struct registry_entry){};
	return 1;
}

/* 0: nobody has the target. */
static int registry_claim(int dir_fd, const char *target, struct diag *diag)
{
	struct registry_entry other = {.target = (char *)target};
	int r = registry_visit(dir_fd, true, registry_same_target, &other);

	if (r < 0)
		return diag_errno(diag, r, "Cannot read the list of exports");
	if (r > 0) {
		r = diag_set(diag, -EBUSY,
			     "%s is taken: process %d serves %s there, or still writes the last "
			     "of it",
			     target, (int)other.pid, other.image);
		registry_entry_done(&other);
	}
	return r;
}

/* What stands in the way of the lock stands in nobody else's: then the entry may grow old. */
static int registry_hold(const char *path)
{
	_cleanup_free_ char *dir = strdup(path);
	_cleanup_close_ int fd = -1;

	if (!dir)
		return -1;
	*strrchr(dir, '/') = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0 ? -1 : TAKE_FD(fd);
}

static int registry_create(const char *dir, const struct registry_entry *e,
			   struct registry_own **ret)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	_cleanup_free_ struct registry_own *own = calloc(1, sizeof(*own));
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	if (!own || asprintf(&path, "%s/export-XXXXXX", dir) < 0)
		return -ENOMEM;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : registry_record_write(fd, e);
	if (r == 0 && fchmod(fd, 0644) < 0)
		r = -errno;
	if (r < 0) {
		unlink(path);
		return r;
	}
	own->fd = TAKE_FD(fd);
	own->dir_fd = registry_hold(path);
	own->path = TAKE_PTR(path);
	*ret = TAKE_PTR(own);
	return 0;
}

int registry_add(const struct registry_entry *e, struct registry_own **ret, struct diag *diag)
{
	_cleanup_free_ struct registry_dirs *dirs = malloc(sizeof(*dirs));
	_cleanup_close_ int dir_fd = -1, lock_fd = -1;
	const char *dir;
	int r;

	if (!dirs)
		return diag_errno(diag, -ENOMEM, "Cannot enter %s in the list of exports",
				  e->target);
	registry_dirs_init(dirs);
	r = registry_dir_own(dirs, &dir, &dir_fd, diag);
	if (r < 0)
		return r;
	r = registry_dir_lock(dir_fd, &lock_fd);
	if (r < 0)
		return diag_errno(diag, r, "Cannot lock the list of exports in %s", dir);
	r = registry_claim(dir_fd, e->target, diag);
	if (r < 0)
		return r;
	r = registry_create(dir, e, ret);
	if (r < 0)
		return diag_errno(diag, r, "Cannot enter %s in the list of exports in %s",
				  e->target, dir);
	return 0;
}

int registry_adopt(int fd, const char *path, struct registry_own **ret)
{
	_cleanup_free_ struct registry_own *own = calloc(1, sizeof(*own));

	if (!own || !(own->path = strdup(path)))
		return -ENOMEM;
	own->fd = fd;
	own->dir_fd = registry_hold(path);
	*ret = TAKE_PTR(own);
	return 0;
}

void registry_refresh(struct registry_own *own, const struct registry_entry *e)
{
	char text[128];

	if (own)
		(void)io_pwrite(own->fd, text, (size_t)registry_changing(e, text, sizeof(text)), 0);
}

int registry_fd(const struct registry_own *own)
{
	return own ? own->fd : -1;
}

const char *registry_path(const struct registry_own *own)
{
	return own ? own->path : NULL;
}

void registry_leave(struct registry_own *own)
{
	if (!own)
		return;
	close(own->fd);
	closep(&own->dir_fd);
	free(own->path);
	free(own);
}

void registry_remove(struct registry_own *own, const struct diag *outcome)
{
	if (!own)
		return;
	/* In this order: who sees the lock end must find the outcome, and the next supervisor of
	 * this target no trace of us */
	dprintf(own->fd, "error=%d%cmessage=%s%c", outcome ? -outcome->error : 0, 0,
		outcome ? outcome->text : "", 0);
	unlink(own->path);
	registry_leave(own);
}

/* The side of those who look. */

struct registry_array {
	struct registry_entry *entries;
	size_t n;
};

static void registry_array_done(struct registry_array *a)
{
	for (size_t i = 0; i < a->n; i++)
		registry_entry_done(&a->entries[i]);
	free(a->entries);
}

static int registry_collect(void *data, int *fd, struct registry_entry *e)
{
	struct registry_array *a = data;
	struct registry_entry *entries = reallocarray(a->entries, a->n + 1, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	a->entries = entries;
	a->entries[a->n++] = *e;
	*e = (struct registry_entry){};
	return 0;
}

static int registry_compare(const void *a, const void *b)
{
	const struct registry_entry *x = a, *y = b;

	return strcmp(x->target, y->target);
}

int registry_list(struct registry_entry **ret, size_t *ret_n, struct diag *diag)
{
	_cleanup_(registry_array_done) struct registry_array a = {};
	int r = registry_visit_all(registry_collect, &a);

	if (r < 0)
		return diag_errno(diag, r, "Cannot read the list of exports");
	if (a.n)
		qsort(a.entries, a.n, sizeof(*a.entries), registry_compare);
	*ret = a.entries;
	*ret_n = a.n;
	a = (struct registry_array){};
	return 0;
}

struct registry_search {
	const char *target;
	struct registry_watch *found;
};

static int registry_match(void *data, int *fd, struct registry_entry *e)
{
	struct registry_search *s = data;

	if (strcmp(e->target, s->target) != 0)
		return 0;
	s->found = malloc(sizeof(*s->found));
	if (!s->found)
		return -ENOMEM;
	s->found->fd = TAKE_FD(*fd);
	/* The lock was held when the pid was read, so that the pid was not anybody else's. Should
	 * it have ended since, the lock will say so. */
	s->found->pid_fd = e->pid > 0 ? (int)syscall(SYS_pidfd_open, e->pid, 0) : -1;
	return 1;
}

int registry_watch(const char *target, struct registry_watch **ret, struct diag *diag)
{
	struct registry_search s = {.target = target};
	int r = registry_visit_all(registry_match, &s);

	if (r < 0)
		return diag_errno(diag, r, "Cannot read the list of exports");
	*ret = s.found;
	return 0;
}

static int registry_now_ms(int64_t *ret)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_MONOTONIC, &ts) < 0)
		return -errno;
	*ret = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
	return 0;
}

/* Sleeps until the process ended, or a slice of time (or all of `left`) has passed. */
static void registry_doze(struct registry_watch *w, int64_t left)
{
	struct pollfd p = {.fd = w->pid_fd, .events = POLLIN};
	/* With a process to watch the slice is only for the case that the pid is of another pid
	 * namespace, and so another's */
	int64_t slice = w->pid_fd >= 0 ? 20 * REGISTRY_SLICE_MS : REGISTRY_SLICE_MS;

	if (left >= 0 && left < slice)
		slice = left;
	if (poll(&p, 1, (int)slice) > 0) {
		close(w->pid_fd);
		w->pid_fd = -1;
	}
}

static int registry_outcome(struct registry_watch *w, struct diag *diag)
{
	_cleanup_(registry_record_done) struct registry_record record = {};
	int r = registry_record_read(w->fd, &record);

	if (r < 0)
		return diag_errno(diag, r, "Cannot read how the export ended");
	if (!record.ended)
		return diag_set(diag, -EOWNERDEAD,
				"The process that served %s (%d) died, so the last writes to %s "
				"may be lost; the system's log may say why",
				record.entry.target, (int)record.entry.pid, record.entry.image);
	if (record.error < 0)
		return diag_set(diag, record.error, "%s", record.message ?: "");
	return 0;
}

int registry_wait(struct registry_watch *w, int timeout_ms, struct diag *diag)
{
	int64_t now = 0, end = 0;
	int r = registry_now_ms(&now);

	end = now + timeout_ms;
	while (r == 0 && registry_is_live(w->fd)) {
		if (timeout_ms >= 0 && now >= end)
			return diag_set(diag, -ETIME, "The export is still writing to its image");
		registry_doze(w, timeout_ms < 0 ? -1 : end - now);
		r = registry_now_ms(&now);
	}
	return r < 0 ? r : registry_outcome(w, diag);
}

void registry_watch_free(struct registry_watch *w)
{
	if (!w)
		return;
	closep(&w->fd);
	closep(&w->pid_fd);
	free(w);
}
