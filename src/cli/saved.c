/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/saved.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/io.h"

#define SAVED_MAGIC "fuseimg check: saved metadata 2\n"

#define SAVED_SEAL_OFF UINT64_MAX /* where no image has anything */

enum {
	SAVED_MAGIC_BYTES = sizeof(SAVED_MAGIC) - 1,
	SAVED_HEAD = SAVED_MAGIC_BYTES + 8, /* the size of the image follows */
	SAVED_RECORD_MAX = 1 << 20,
	SAVED_SEAL = 16,       /* bytes of that record */
	SAVED_NAMES_MAX = 100, /* repairs in one second */
};

void saved_init(struct saved *s, const char *image, const char *dir, uint64_t image_size,
		struct diag *diag)
{
	*s = (struct saved){
		.image = image, .dir = dir, .image_size = image_size, .diag = diag, .fd = -1};
}

void saved_done(struct saved *s)
{
	closep(&s->fd);
	free(s->path);
}

/* A name that nobody has yet. */
static int saved_create(struct saved *s)
{
	const char *base = strrchr(s->image, '/');
	int dir_len = s->dir ? (int)strlen(s->dir) : base ? (int)(base - s->image) : 0;
	const char *dir = s->dir ?: s->image;
	time_t now = time(NULL);
	char stamp[32];
	struct tm tm;

	base = base ? base + 1 : s->image;
	strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
	for (int i = 0; i < SAVED_NAMES_MAX; i++) {
		char number[16] = "";

		if (i > 0)
			snprintf(number, sizeof(number), "-%d", i);
		free(TAKE_PTR(s->path));
		if (asprintf(&s->path, "%.*s%s%s.fuseimg-check-%s%s", dir_len, dir,
			     s->dir || base != s->image ? "/" : "", base, stamp, number) < 0) {
			s->path = NULL;
			return -ENOMEM;
		}
		s->fd = open(s->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (s->fd >= 0)
			return 0;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

static int saved_begin(struct saved *s)
{
	uint8_t size[8];
	int r = saved_create(s);

	if (r < 0) {
		free(TAKE_PTR(s->path));
		return diag_errno(s->diag, r,
				  "Cannot save what the repair of %s would overwrite (see "
				  "--save-dir)",
				  s->image);
	}
	be64_put(size, s->image_size);
	r = io_write(s->fd, SAVED_MAGIC, SAVED_MAGIC_BYTES);
	return r < 0 ? r : io_write(s->fd, size, sizeof(size));
}

static int saved_failed(struct saved *s, int error)
{
	return diag_errno(s->diag, error, "%s: cannot be written", s->path);
}

int saved_write(struct saved *s, const void *bytes, size_t len, uint64_t off)
{
	uint8_t head[16];
	int r = s->fd < 0 ? saved_begin(s) : 0;

	if (r < 0)
		return s->fd < 0 ? r : saved_failed(s, r);
	be64_put(head, off);
	be64_put(head + 8, len);
	r = io_write(s->fd, head, sizeof(head));
	if (r == 0)
		r = io_write(s->fd, bytes, len);
	return r < 0 ? saved_failed(s, r) : 0;
}

/* The directory, so that the file is found after a power cut. */
static int saved_flush_name(struct saved *s)
{
	_cleanup_free_ char *dir = strdup(s->path);
	_cleanup_close_ int fd = -1;
	char *slash;

	if (!dir)
		return -ENOMEM;
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* A file system that cannot do this does not need it */
	return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

int saved_flush(struct saved *s)
{
	int r;

	if (s->fd < 0)
		return 0;
	r = fsync(s->fd) < 0 ? -errno : saved_flush_name(s);
	return r < 0 ? saved_failed(s, r) : 0;
}

int saved_put_seal(struct saved *s, const struct saved_seal *seal)
{
	uint8_t bytes[SAVED_SEAL];
	int r;

	be64_put(bytes, seal->size);
	be64_put(bytes + 8, seal->sum);
	r = saved_write(s, bytes, sizeof(bytes), SAVED_SEAL_OFF);
	return r < 0 ? r : saved_flush(s);
}

/* The records of a file by their places, to be put back in reverse order: where bytes were saved
 * twice, the first are the oldest. */
struct saved_records {
	uint64_t *at;
	size_t n, room;
};

static int saved_records_add(struct saved_records *records, uint64_t at)
{
	if (records->n == records->room) {
		size_t room = records->room ? records->room * 2 : 256;
		uint64_t *more = reallocarray(records->at, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		records->at = more;
		records->room = room;
	}
	records->at[records->n++] = at;
	return 0;
}

/* The record at `at` of the file: 1, or 0 at its end. A record that is cut off was never followed
 * by a change of the image. */
static int saved_record(int fd, uint64_t at, uint64_t *ret_off, uint8_t *bytes, uint64_t *ret_len)
{
	uint8_t head[16];
	ssize_t n = io_pread(fd, head, sizeof(head), at);
	uint64_t len;

	if (n < (ssize_t)sizeof(head))
		return n < 0 ? (int)n : 0;
	len = be64_get(head + 8);
	if (len > SAVED_RECORD_MAX)
		return -EUCLEAN;
	n = io_pread(fd, bytes, len, at + sizeof(head));
	if (n < (ssize_t)len)
		return n < 0 ? (int)n : 0;
	*ret_off = be64_get(head);
	*ret_len = len;
	return 1;
}

/* Up to the seal, of which 1 says that it is there; it stays in bytes. */
static int saved_find(int fd, uint8_t *bytes, struct saved_records *records)
{
	uint64_t at = SAVED_HEAD, off, len = 0;
	int r;

	while ((r = saved_record(fd, at, &off, bytes, &len)) > 0) {
		if (off == SAVED_SEAL_OFF)
			return len == SAVED_SEAL ? 1 : -EUCLEAN;
		r = saved_records_add(records, at);
		if (r < 0)
			return r;
		at += 16 + len;
	}
	return r;
}

static int saved_put_back(int fd, struct store *store, uint64_t size)
{
	_cleanup_free_ uint8_t *bytes = malloc(SAVED_RECORD_MAX);
	struct saved_records records = {0};
	int r = bytes ? saved_find(fd, bytes, &records) : -ENOMEM;

	for (size_t i = records.n; r >= 0 && i-- > 0;) {
		uint64_t off = 0, len = 0;

		r = saved_record(fd, records.at[i], &off, bytes, &len);
		if (r > 0)
			r = store_write(store, bytes, len, off);
	}
	free(records.at);
	if (r >= 0 && !store->fixed)
		r = store_resize(store, size);
	return r < 0 ? r : store_flush(store);
}

/* A file that we have made; *ret_size: of the image before the repair. */
static int saved_open(const char *path, uint64_t *ret_size, struct diag *diag)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t head[SAVED_HEAD];

	if (fd < 0)
		return diag_errno(diag, -errno, "%s: cannot be opened", path);
	if (io_pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
	    memcmp(head, SAVED_MAGIC, SAVED_MAGIC_BYTES) != 0)
		return diag_set(diag, -EUCLEAN, "%s: was not saved by fuseimg check", path);
	*ret_size = be64_get(head + SAVED_MAGIC_BYTES);
	return TAKE_FD(fd);
}

int saved_read_seal(const char *path, struct saved_seal *ret, struct diag *diag)
{
	_cleanup_free_ uint8_t *bytes = malloc(SAVED_RECORD_MAX);
	struct saved_records records = {0};
	uint64_t before = 0;
	_cleanup_close_ int fd = saved_open(path, &before, diag);
	int r;

	if (fd < 0)
		return fd;
	r = bytes ? saved_find(fd, bytes, &records) : -ENOMEM;
	free(records.at);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot be read", path);
	if (r == 0)
		return diag_set(diag, -EUCLEAN,
				"%s: is of a repair that did not come to its end, which cannot be "
				"taken back; repair the image again",
				path);
	*ret = (struct saved_seal){
		.size = be64_get(bytes), .before = before, .sum = be64_get(bytes + 8)};
	return 0;
}

int saved_undo(const char *path, struct store *store, struct diag *diag)
{
	uint64_t size = 0;
	_cleanup_close_ int fd = saved_open(path, &size, diag);
	int r;

	if (fd < 0)
		return fd;
	r = saved_put_back(fd, store, size);
	return r < 0 ? diag_errno(diag, r, "%s: cannot be put back into %s", path, store->name) : 0;
}
