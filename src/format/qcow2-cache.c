/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * L2 tables in memory, a slice of at most 4 KiB at a time.
 *
 * A slice is read with no lock held, so it may be stale by the time it goes in: table_seq, odd
 * while a writer of entries is at work and changed when it is done, tells. A reader that lost that
 * race reads again under table_lock. Writers change the disk first, then the slice if it is here.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

enum { QCOW2_CACHE_SLOTS_MIN = 64, QCOW2_CACHE_SLOTS_MAX = 1 << 24 };

static size_t qcow2_cache_words(const struct qcow2 *q)
{
	return q->slice_bytes / sizeof(uint64_t);
}

static uint32_t qcow2_cache_bucket(const struct qcow2_cache *c, uint64_t host_off)
{
	/* Fibonacci hashing: tables stand at regular distances */
	uint64_t h = (host_off >> QCOW2_CLUSTER_BITS_MIN) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint32_t)(h >> 32) & (c->n_buckets - 1);
}

/* As many slots as the disk has slices, within the bounds. */
static uint32_t qcow2_cache_size(const struct qcow2 *q)
{
	uint64_t slices = (uint64_t)q->l1_needed << (q->l2_bits - q->slice_bits);
	uint64_t bytes = q->img->table_cache ? q->img->table_cache : FORMAT_TABLE_CACHE;
	uint64_t most = min_u64(bytes / q->slice_bytes, QCOW2_CACHE_SLOTS_MAX);

	return (uint32_t)max_u64(min_u64(slices, most), QCOW2_CACHE_SLOTS_MIN);
}

int qcow2_cache_init(struct qcow2 *q) NO_THREAD_SAFETY_ANALYSIS /* nobody else has q yet */
{
	struct qcow2_cache *c = &q->cache;

	c->n_slots = qcow2_cache_size(q);
	c->n_buckets = 1;
	while (c->n_buckets < c->n_slots)
		c->n_buckets *= 2;
	c->slots = calloc(c->n_slots, sizeof(*c->slots));
	c->buckets = malloc(c->n_buckets * sizeof(*c->buckets));
	c->words = malloc((size_t)c->n_slots * q->slice_bytes);
	if (!c->slots || !c->buckets || !c->words)
		return -ENOMEM;
	memset(c->buckets, 0xff, c->n_buckets * sizeof(*c->buckets));
	return 0;
}

void qcow2_cache_done(struct qcow2 *q) NO_THREAD_SAFETY_ANALYSIS /* everybody has left */
{
	free(q->cache.slots);
	free(q->cache.buckets);
	free(q->cache.words);
}

void qcow2_cache_grow(struct qcow2 *q)
{
	struct qcow2_cache old, new;
	bool grown;

	rwlock_write(&q->map_lock);
	old = q->cache;
	if (qcow2_cache_size(q) / 2 >= old.n_slots) {
		q->cache = (struct qcow2_cache){0};
		grown = qcow2_cache_init(q) == 0;
		new = q->cache;
		q->cache = grown ? old : new;
		qcow2_cache_done(q);
		q->cache = grown ? new : old;
	}
	rwlock_unwrite(&q->map_lock);
}

uint64_t *qcow2_cache_find(struct qcow2 *q, uint64_t host_off)
{
	struct qcow2_cache *c = &q->cache;
	uint32_t i = c->buckets[qcow2_cache_bucket(c, host_off)];

	for (; i != QCOW2_NO_SLOT; i = c->slots[i].next) {
		struct qcow2_slot *slot = &c->slots[i];

		if (slot->host_off != host_off)
			continue;
		if (!atomic_load_explicit(&slot->used, memory_order_relaxed))
			atomic_store_explicit(&slot->used, 1, memory_order_relaxed);
		return c->words + i * qcow2_cache_words(q);
	}
	return NULL;
}

static void qcow2_cache_unchain(struct qcow2 *q, uint32_t victim) REQUIRES(q->map_lock)
{
	struct qcow2_cache *c = &q->cache;
	struct qcow2_slot *slot = &c->slots[victim];
	uint32_t *link;

	if (slot->host_off == 0)
		return;
	link = &c->buckets[qcow2_cache_bucket(c, slot->host_off)];
	while (*link != victim)
		link = &c->slots[*link].next;
	*link = slot->next;
	slot->host_off = 0;
}

/* CLOCK: the first slot that nobody used since the hand was there last. */
static uint32_t qcow2_cache_victim(struct qcow2 *q) REQUIRES(q->map_lock)
{
	struct qcow2_cache *c = &q->cache;

	for (;;) {
		uint32_t i = c->hand;

		c->hand = (c->hand + 1) % c->n_slots;
		if (!atomic_exchange_explicit(&c->slots[i].used, 0, memory_order_relaxed))
			return i;
	}
}

static void qcow2_cache_insert(struct qcow2 *q, uint64_t host_off, const uint64_t *disk)
	REQUIRES(q->map_lock)
{
	struct qcow2_cache *c = &q->cache;
	uint32_t i = qcow2_cache_victim(q);
	uint64_t *words = c->words + i * qcow2_cache_words(q);
	uint32_t *bucket;

	qcow2_cache_unchain(q, i);
	for (size_t k = 0; k < qcow2_cache_words(q); k++)
		words[k] = be64_get(&disk[k]);
	bucket = &c->buckets[qcow2_cache_bucket(c, host_off)];
	c->slots[i].host_off = host_off;
	c->slots[i].next = *bucket;
	atomic_store_explicit(&c->slots[i].used, 1, memory_order_relaxed);
	*bucket = i;
}

void qcow2_cache_drop_table(struct qcow2 *q, uint64_t table_off)
{
	uint64_t end = table_off + q->cluster_size;

	for (uint64_t off = table_off; off < end; off += q->slice_bytes) {
		const uint64_t *words = qcow2_cache_find(q, off);

		if (words)
			qcow2_cache_unchain(q, (uint32_t)((size_t)(words - q->cache.words) /
							  qcow2_cache_words(q)));
	}
}

/* May an L2 table stand here? */
static int qcow2_cache_check(struct qcow2 *q, uint64_t host_off)
{
	uint64_t table_off = round_down(host_off, q->cluster_size);
	uint64_t l1_end = round_up(q->l1_offset + q->l1_size * UINT64_C(8), q->cluster_size);

	if (table_off == 0 || (table_off >= q->l1_offset && table_off < l1_end))
		return image_damaged(q->img, "%s: an L2 table at 0x%llx overlaps the %s",
				     q->img->name, (ull)table_off,
				     table_off ? "L1 table" : "header");
	if (qcow2_beyond_end(q, host_off))
		return image_damaged(q->img, "%s: an L2 table at 0x%llx is outside the file",
				     q->img->name, (ull)table_off);
	return 0;
}

/* -EAGAIN: entries on disk were changed meanwhile, so what was read may be old. */
static int qcow2_cache_read(struct qcow2 *q, uint64_t host_off, uint64_t seq)
{
	uint64_t disk[QCOW2_PIECE_WORDS];
	ssize_t n;
	int r;

	r = qcow2_cache_check(q, host_off);
	if (r < 0)
		return r;
	n = store_read(q->img->store, disk, q->slice_bytes, host_off);
	if (n < 0)
		return (int)n;
	if ((size_t)n < q->slice_bytes)
		return image_damaged(q->img, "%s: the file ends inside the L2 table at 0x%llx",
				     q->img->name, (ull)round_down(host_off, q->cluster_size));

	rwlock_write(&q->map_lock);
	if (qcow2_cache_find(q, host_off))
		r = 0; /* another reader was faster */
	else if (atomic_load(&q->table_seq) != seq)
		r = -EAGAIN;
	else
		qcow2_cache_insert(q, host_off, disk);
	rwlock_unwrite(&q->map_lock);
	return r;
}

int qcow2_cache_load_locked(struct qcow2 *q, uint64_t host_off)
{
	return qcow2_cache_read(q, host_off, atomic_load(&q->table_seq));
}

int qcow2_cache_load(struct qcow2 *q, uint64_t host_off)
{
	uint64_t seq = atomic_load(&q->table_seq);
	int r = -EAGAIN;

	if (seq % 2 == 0)
		r = qcow2_cache_read(q, host_off, seq);
	if (r != -EAGAIN)
		return r;
	mutex_lock(&q->table_lock);
	r = qcow2_cache_load_locked(q, host_off);
	mutex_unlock(&q->table_lock);
	return r;
}
