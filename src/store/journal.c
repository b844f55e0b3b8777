/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "store/journal-core.h"

/*
 * Recording. A change and its record are made under one lock, so the order of the records is the
 * order in which the changes were made. A flush is recorded when it returns, and knows where the
 * records were when it was called.
 */

struct journal_store {
	struct store store;
	struct store *inner;
	struct journal *journal;
	unsigned disk;
};

static struct journal_store *journal_store_of(struct store *s)
{
	return (struct journal_store *)s;
}

static int journal_make_room(struct journal *j) REQUIRES(j->lock)
{
	size_t room = j->room ? 2 * j->room : 256;
	struct journal_record *records;

	if (j->n_records < j->room)
		return 0;
	records = reallocarray(j->records, room, sizeof(*records));
	if (!records)
		return -ENOMEM;
	j->records = records;
	j->room = room;
	return 0;
}

static int journal_do(struct store *inner, const struct journal_record *rec, const void *buf)
{
	switch (rec->kind) {
	case JOURNAL_WRITE:
		return store_write(inner, buf, rec->len, rec->off);
	case JOURNAL_ZERO:
		return store_zero(inner, rec->off, rec->len);
	case JOURNAL_DISCARD:
		return store_discard(inner, rec->off, rec->len);
	case JOURNAL_RESIZE:
		return store_resize(inner, rec->size_after);
	case JOURNAL_FLUSH:
		return 0; /* done by journal_store_flush() */
	}
	return -EINVAL;
}

/* Does what rec says and appends it; rec->size_after is the caller's for a resize. */
static int journal_append(struct journal *j, struct journal_store *js, struct journal_record *rec,
			  const void *buf) REQUIRES(j->lock)
{
	_cleanup_free_ void *data = NULL;
	int r = journal_make_room(j);

	if (r < 0)
		return r;
	if (buf) {
		data = malloc(rec->len);
		if (!data)
			return -ENOMEM;
		memcpy(data, buf, rec->len);
	}
	r = store_size(js->inner, &rec->size_before);
	if (r < 0)
		return r;
	if (rec->kind == JOURNAL_RESIZE) {
		rec->off = min_u64(rec->size_before, rec->size_after);
		rec->len = max_u64(rec->size_before, rec->size_after) - rec->off;
	}
	r = journal_do(js->inner, rec, buf);
	if (r < 0)
		return r;
	r = store_size(js->inner, &rec->size_after);
	if (r < 0)
		return r;
	rec->disk = js->disk;
	rec->data = TAKE_PTR(data);
	j->records[j->n_records++] = *rec;
	return 0;
}

static int journal_record(struct store *s, struct journal_record rec, const void *buf)
{
	struct journal_store *js = journal_store_of(s);
	struct journal *j = js->journal;
	int r;

	mutex_lock(&j->lock);
	r = journal_append(j, js, &rec, buf);
	mutex_unlock(&j->lock);
	return r;
}

static void journal_store_close(struct store *s)
{
	struct journal_store *js = journal_store_of(s);

	store_close(js->inner);
	free(js);
}

static ssize_t journal_store_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	return store_read(journal_store_of(s)->inner, buf, len, off);
}

static int journal_store_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	return journal_record(
		s, (struct journal_record){.kind = JOURNAL_WRITE, .off = off, .len = len}, buf);
}

/* Is it this flush's turn to fail? */
static bool journal_fails(struct journal *j) REQUIRES(j->lock)
{
	return j->fail_in > 0 && --j->fail_in == 0;
}

/* All that was recorded before `upto` is on the disk, or was to be. */
static int journal_flushed(struct journal_store *js, size_t upto, bool failed)
{
	struct journal_record rec = {.kind = JOURNAL_FLUSH, .upto = upto, .failed = failed};
	struct journal *j = js->journal;
	int r;

	mutex_lock(&j->lock);
	r = journal_append(j, js, &rec, NULL);
	mutex_unlock(&j->lock);
	return failed ? -EIO : r;
}

/* A failure is that of a write whose range is lost, with all else that waited to be written. */
static int journal_store_write_durable(struct store *s, const void *buf, size_t len, uint64_t off)
{
	struct journal_record rec = {.kind = JOURNAL_WRITE, .off = off, .len = len};
	struct journal_store *js = journal_store_of(s);
	struct journal *j = js->journal;
	size_t upto;
	int r;

	mutex_lock(&j->lock);
	rec.durable = !journal_fails(j);
	r = journal_append(j, js, &rec, buf);
	upto = j->n_records;
	mutex_unlock(&j->lock);
	return r < 0 || rec.durable ? r : journal_flushed(js, upto, true);
}

static int journal_store_flush(struct store *s)
{
	struct journal_store *js = journal_store_of(s);
	struct journal *j = js->journal;
	unsigned slow;
	bool fails;
	size_t upto;
	int r;

	mutex_lock(&j->lock);
	upto = j->n_records;
	slow = j->slow;
	fails = journal_fails(j);
	mutex_unlock(&j->lock);
	r = store_flush(js->inner);
	if (slow > 0)
		usleep(slow);
	return r < 0 ? r : journal_flushed(js, upto, fails);
}

static int journal_store_discard(struct store *s, uint64_t off, uint64_t len)
{
	return journal_record(
		s, (struct journal_record){.kind = JOURNAL_DISCARD, .off = off, .len = len}, NULL);
}

static int journal_store_zero(struct store *s, uint64_t off, uint64_t len)
{
	return journal_record(
		s, (struct journal_record){.kind = JOURNAL_ZERO, .off = off, .len = len}, NULL);
}

static int journal_store_resize(struct store *s, uint64_t size)
{
	return journal_record(
		s, (struct journal_record){.kind = JOURNAL_RESIZE, .size_after = size}, NULL);
}

/* Changes neither contents nor size: nothing to lose. */
static int journal_store_allocate(struct store *s, uint64_t off, uint64_t len)
{
	return store_allocate(journal_store_of(s)->inner, off, len);
}

static int journal_store_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data,
			     uint64_t *ret_len)
{
	return store_map(journal_store_of(s)->inner, off, len, ret_data, ret_len);
}

static int journal_store_stat(struct store *s, struct store_stat *ret)
{
	return store_stat(journal_store_of(s)->inner, ret);
}

static const struct store_ops journal_ops = {
	.kind = "journal",
	.close = journal_store_close,
	.read = journal_store_read,
	.write = journal_store_write,
	.write_durable = journal_store_write_durable,
	.flush = journal_store_flush,
	.discard = journal_store_discard,
	.zero = journal_store_zero,
	.allocate = journal_store_allocate,
	.resize = journal_store_resize,
	.map = journal_store_map,
	.stat = journal_store_stat,
};

struct journal *journal_new(void)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (j)
		mutex_init(&j->lock);
	return j;
}

/* Nobody else has it any more. */
struct journal *journal_free(struct journal *j) NO_THREAD_SAFETY_ANALYSIS
{
	if (!j)
		return NULL;
	for (size_t i = 0; i < j->n_records; i++)
		free(j->records[i].data);
	for (unsigned i = 0; i < j->n_disks; i++) {
		free(j->disks[i].name);
		store_close(j->disks[i].base);
		store_close(j->disks[i].durable);
	}
	free(j->records);
	mutex_done(&j->lock);
	free(j);
	return NULL;
}

/* Keeps a copy of inner as the next disk. */
static int journal_add_disk(struct journal *j, struct store *inner, unsigned *ret) REQUIRES(j->lock)
{
	struct journal_disk disk = {0};
	int r;

	if (j->n_disks == JOURNAL_DISKS_MAX)
		return -ENOSPC;
	disk.name = strdup(inner->name);
	if (!disk.name)
		return -ENOMEM;
	r = journal_copy(inner, &disk.base);
	if (r < 0) {
		free(disk.name);
		return r;
	}
	*ret = j->n_disks;
	j->disks[j->n_disks++] = disk;
	return 0;
}

int journal_attach(struct journal *j, struct store *inner, struct store **ret)
{
	_cleanup_store_ struct store *owned = inner, *s = NULL;
	struct journal_store *js = calloc(1, sizeof(*js));
	int r;

	if (!js)
		return -ENOMEM;
	r = store_init(&js->store, &journal_ops, inner->name, inner->read_only);
	if (r < 0) {
		free(js);
		return r;
	}
	s = &js->store;
	s->fixed = inner->fixed;
	s->fixed_size = inner->fixed_size;
	js->journal = j;
	mutex_lock(&j->lock);
	r = journal_add_disk(j, inner, &js->disk);
	mutex_unlock(&j->lock);
	if (r < 0)
		return r;
	js->inner = TAKE_PTR(owned);
	*ret = TAKE_PTR(s);
	return 0;
}

void journal_slow_flushes(struct journal *j, unsigned microseconds)
{
	mutex_lock(&j->lock);
	j->slow = microseconds;
	mutex_unlock(&j->lock);
}

void journal_fail_flush(struct journal *j, uint64_t skip)
{
	mutex_lock(&j->lock);
	j->fail_in = skip + 1;
	mutex_unlock(&j->lock);
}

size_t journal_length(struct journal *j)
{
	size_t n;

	mutex_lock(&j->lock);
	n = j->n_records;
	mutex_unlock(&j->lock);
	return n;
}

const struct journal_record *journal_at(struct journal *j, size_t i)
{
	const struct journal_record *rec;

	mutex_lock(&j->lock);
	assert(i < j->n_records);
	rec = &j->records[i];
	mutex_unlock(&j->lock);
	return rec;
}

const char *journal_describe(struct journal *j, size_t i, char *dst, size_t dst_size)
{
	static const char *const kinds[] = {"write", "zero", "discard", "resize", "flush"};
	const struct journal_record *rec = journal_at(j, i);

	if (rec->kind == JOURNAL_FLUSH)
		snprintf(dst, dst_size, "%sflush of disk %u", rec->failed ? "failed " : "",
			 rec->disk);
	else if (rec->kind == JOURNAL_RESIZE)
		snprintf(dst, dst_size, "resize of disk %u from %llu to %llu bytes", rec->disk,
			 (unsigned long long)rec->size_before, (unsigned long long)rec->size_after);
	else
		snprintf(dst, dst_size, "%s%s of %llu bytes at 0x%llx of disk %u",
			 rec->durable ? "durable " : "", kinds[rec->kind],
			 (unsigned long long)rec->len, (unsigned long long)rec->off, rec->disk);
	return dst;
}
