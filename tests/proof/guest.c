/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"

static size_t guest_time(struct guest *g)
{
	return g->clock ? journal_length(g->clock) : 0;
}

static struct guest_content *guest_push(struct guest_content **cell, size_t bytes, size_t asked)
{
	struct guest_content *c = calloc(1, sizeof(*c) + bytes);

	assert(c);
	c->asked = asked;
	c->answered = SIZE_MAX;
	c->older = *cell;
	*cell = c;
	return c;
}

void guest_init(struct guest *g, struct journal *clock, struct image *img, uint64_t capacity)
{
	_cleanup_free_ char *all = calloc(1, capacity);
	uint64_t size = image_size(img);
	int r = image_read(img, all, (size_t)min_u64(size, capacity), 0);

	assert(all && r == 0);
	*g = (struct guest){.clock = clock, .n_sectors = capacity / GUEST_SECTOR};
	mutex_init(&g->lock);
	g->sectors = calloc(g->n_sectors, sizeof(struct guest_content *));
	assert(g->sectors);
	for (size_t i = 0; i < g->n_sectors; i++) {
		guest_push(&g->sectors[i], GUEST_SECTOR, 0)->answered = 0;
		memcpy(g->sectors[i]->bytes, all + i * GUEST_SECTOR, GUEST_SECTOR);
	}
	guest_push(&g->size, 0, 0)->answered = 0;
	g->size->size = size;
}

static void guest_free_cell(struct guest_content *c)
{
	while (c) {
		struct guest_content *older = c->older;

		free(c);
		c = older;
	}
}

void guest_done(struct guest *g) NO_THREAD_SAFETY_ANALYSIS /* everybody has left */
{
	for (size_t i = 0; i < g->n_sectors; i++)
		guest_free_cell(g->sectors[i]);
	guest_free_cell(g->size);
	free(g->sectors);
	free(g->flushes);
	mutex_done(&g->lock);
}

static void guest_ask(struct guest *g, const void *buf, uint64_t len, uint64_t off, bool cut)
{
	size_t asked = guest_time(g);

	for (uint64_t i = off / GUEST_SECTOR; i * GUEST_SECTOR < off + len; i++) {
		uint64_t from = max_u64(off, i * GUEST_SECTOR);
		uint64_t to = min_u64(off + len, (i + 1) * GUEST_SECTOR);
		struct guest_content *c = guest_push(&g->sectors[i], GUEST_SECTOR, asked);
		char *at = c->bytes + (from - i * GUEST_SECTOR);

		c->partial = to - from < GUEST_SECTOR;
		c->cut = cut;
		memcpy(c->bytes, c->older->bytes, GUEST_SECTOR);
		if (buf)
			memcpy(at, (const char *)buf + (from - off), to - from);
		else
			memset(at, 0, to - from);
	}
}

void guest_ask_write(struct guest *g, const void *buf, uint64_t len, uint64_t off)
{
	guest_ask(g, buf, len, off, false);
}

void guest_answer(struct guest *g, uint64_t len, uint64_t off, int result)
{
	size_t now = guest_time(g);

	if (result < 0)
		return;
	for (uint64_t i = off / GUEST_SECTOR; i * GUEST_SECTOR < off + len; i++)
		g->sectors[i]->answered = now;
}

/* What is cut off is zero when the disk grows again. */
void guest_ask_resize(struct guest *g, uint64_t size)
{
	uint64_t end = g->n_sectors * GUEST_SECTOR;

	if (size < min_u64(g->size->size, end))
		guest_ask(g, NULL, end - size, size, true);
	guest_push(&g->size, 0, guest_time(g))->size = size;
}

void guest_answer_resize(struct guest *g, int result)
{
	uint64_t end = g->n_sectors * GUEST_SECTOR, size = g->size->size;

	if (size < min_u64(g->size->older->size, end))
		guest_answer(g, end - size, size, result);
	if (result == 0)
		g->size->answered = guest_time(g);
}

void guest_observe(struct guest *g, struct image *img)
{
	uint64_t size = image_size(img), end = min_u64(size, g->n_sectors * GUEST_SECTOR);
	_cleanup_free_ char *all = calloc(1, g->n_sectors * GUEST_SECTOR);
	size_t now = guest_time(g);
	int r = image_read(img, all, end, 0);

	assert(r == 0);
	if (g->size->size != size)
		guest_push(&g->size, 0, now)->size = size;
	for (size_t i = 0; i < g->n_sectors; i++) {
		const char *bytes = all + i * GUEST_SECTOR;

		if (memcmp(g->sectors[i]->bytes, bytes, GUEST_SECTOR) != 0)
			memcpy(guest_push(&g->sectors[i], GUEST_SECTOR, now)->bytes, bytes,
			       GUEST_SECTOR);
	}
}

size_t guest_ask_flush(struct guest *g)
{
	return guest_time(g);
}

void guest_flushed(struct guest *g, size_t asked)
{
	struct guest_flush f = {.asked = asked, .answered = guest_time(g)};

	mutex_lock(&g->lock);
	g->flushes = reallocarray(g->flushes, g->n_flushes + 1, sizeof(f));
	assert(g->flushes);
	g->flushes[g->n_flushes++] = f;
	mutex_unlock(&g->lock);
}

/* What there may be when the power went at time k. */
struct guest_moment {
	size_t k;
	size_t durable; /* what was answered up to this time is there */
	size_t sized;	/* when the size that is there was asked for */
};

static size_t guest_durable(struct guest *g, size_t k)
{
	size_t durable = 0;

	if (k == GUEST_NOW)
		return SIZE_MAX - 1;
	mutex_lock(&g->lock);
	for (size_t i = 0; i < g->n_flushes; i++)
		if (g->flushes[i].answered <= k)
			durable = max_u64(durable, g->flushes[i].asked);
	mutex_unlock(&g->lock);
	return durable;
}

/* Was it asked for too late to be there? */
static bool guest_too_late(const struct guest_content *c, const struct guest_moment *m)
{
	return c->asked > m->k || (c->cut && c->asked > m->sized);
}

/* Goes to the next older content that there may be; c: the one before, NULL first. */
static const struct guest_content *guest_next(const struct guest_content *newest,
					      const struct guest_content *c,
					      const struct guest_moment *m)
{
	if (c && c->answered <= m->durable)
		return NULL;
	for (c = c ? c->older : newest; c && guest_too_late(c, m); c = c->older)
		;
	return c;
}

static bool guest_accepts_size(struct guest *g, uint64_t size, struct guest_moment *m)
{
	const struct guest_content *c = NULL;

	while ((c = guest_next(g->size, c, m)))
		if (c->size == size) {
			m->sized = c->asked;
			return true;
		}
	return false;
}

/* Is each byte that of some content, where they may be mixed? */
static bool guest_accepts_bytes(struct guest *g, size_t i, const char *bytes, size_t len,
				const struct guest_moment *m)
{
	const struct guest_content *c = NULL;
	bool found[GUEST_SECTOR] = {0}, all = true, partial = false;

	while ((c = guest_next(g->sectors[i], c, m))) {
		partial |= c->partial;
		for (size_t b = 0; b < len; b++)
			found[b] |= c->bytes[b] == bytes[b];
	}
	for (size_t b = 0; b < len; b++)
		all &= found[b];
	return partial && all;
}

static bool guest_accepts_sector(struct guest *g, size_t i, const char *bytes, size_t len,
				 const struct guest_moment *m)
{
	const struct guest_content *c = NULL;

	while ((c = guest_next(g->sectors[i], c, m)))
		if (memcmp(c->bytes, bytes, len) == 0)
			return true;
	return m->k != GUEST_NOW && guest_accepts_bytes(g, i, bytes, len, m);
}

/* Says whether the sector holds an older content or one that it never had. */
static void guest_explain(struct guest *g, size_t i, const char *bytes, size_t len, char *why,
			  size_t why_size)
{
	unsigned age = 0, all = 0;
	bool found = false;

	for (const struct guest_content *c = g->sectors[i]; c; c = c->older, all++) {
		found |= memcmp(c->bytes, bytes, len) == 0;
		age += !found;
	}
	snprintf(why, why_size, "guest sector %zu is %s (%u contents, this is number %u)", i,
		 found ? "an old one" : "foreign", all, age);
}

bool guest_accepts(struct guest *g, struct image *img, size_t k, char *why, size_t why_size)
{
	uint64_t size = image_size(img), end = min_u64(size, g->n_sectors * GUEST_SECTOR);
	struct guest_moment m = {.k = k, .durable = guest_durable(g, k), .sized = SIZE_MAX};
	_cleanup_free_ char *all = malloc(end + 1);
	int r = all ? image_read(img, all, end, 0) : -1;

	if (r < 0) {
		snprintf(why, why_size, "reading fails: %s: %s", strerror(-r),
			 image_damage(img) ?: "no damage");
		return false;
	}
	if (!guest_accepts_size(g, size, &m)) {
		snprintf(why, why_size, "the disk has %llu bytes", (unsigned long long)size);
		for (struct guest_content *c = g->size; c; c = c->older)
			fprintf(stderr, "size %lu asked %zu answered %zd\n", c->size, c->asked,
				c->answered);
		fprintf(stderr, "durable %zu\n", m.durable);
		return false;
	}
	for (uint64_t off = 0; off < end; off += GUEST_SECTOR) {
		size_t len = (size_t)min_u64(GUEST_SECTOR, end - off);

		if (guest_accepts_sector(g, off / GUEST_SECTOR, all + off, len, &m))
			continue;
		guest_explain(g, off / GUEST_SECTOR, all + off, len, why, why_size);
		return false;
	}
	return true;
}
