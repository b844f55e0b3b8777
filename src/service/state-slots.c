/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/state-slots.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"

static void state_slots_write_windows(const struct slots_windows *w, state_put_fn put, void *data)
{
	const struct slots_names *names = &w->names[0];

	for (uint32_t i = 0; i < atomic_load(&w->n); i++)
		put(data, "slots.window", "%" PRIu64 " %" PRIu64 " %" PRIu32, w->windows[i].off,
		    atomic_load(&w->windows[i].len), w->windows[i].number);
	for (uint32_t i = 0; i < names->n; i++)
		put(data, "slots.name", "%u", names->window[i]);
	put(data, "slots.selected", "%" PRIu32, names->selected);
}

void state_slots_write(const struct slots_carried *c, state_put_fn put, void *data)
{
	const struct slots_sum *s = &c->sum;

	put(data, "slots.opened", "%" PRIu32, c->opened);
	put(data, "slots.lost", "%" PRId32 " %" PRId32, c->lost[0], c->lost[1]);
	put(data, "slots.sum",
	    "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64
	    " %" PRIu64,
	    s->reads, s->read_bytes, s->writes, s->write_bytes, s->flushes, s->discards, s->others,
	    s->errors);
	for (unsigned i = 0; i < SLOTS_NODES_MAX; i++) {
		const struct slots_attr *a = &c->attr[i];
		uint32_t set = atomic_load(&a->set);

		if (set || a->ctime_ns)
			put(data, "slots.attr",
			    "%u %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRId64
			    " %" PRId64 " %" PRId64,
			    i, set, a->mode, a->uid, a->gid, a->atime_ns, a->mtime_ns, a->ctime_ns);
	}
	state_slots_write_windows(&c->windows, put, data);
}

static int state_slots_take_attr(struct slots_carried *c, const char *value)
{
	struct slots_attr a = {};
	uint32_t set;
	unsigned i;

	if (sscanf(value,
		   "%u %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNd64 " %" SCNd64
		   " %" SCNd64,
		   &i, &set, &a.mode, &a.uid, &a.gid, &a.atime_ns, &a.mtime_ns, &a.ctime_ns) != 8 ||
	    i >= SLOTS_NODES_MAX)
		return -EBADMSG;
	atomic_store(&a.set, set);
	memcpy(&c->attr[i], &a, sizeof(a));
	return 0;
}

/* Their order is their number. */
static int state_slots_take_window(struct slots_carried *c, const char *value)
{
	uint32_t n = atomic_load(&c->windows.n), number;
	uint64_t off, len;

	if (n == SLOTS_WINDOWS_MAX ||
	    sscanf(value, "%" SCNu64 " %" SCNu64 " %" SCNu32, &off, &len, &number) != 3)
		return -EBADMSG;
	c->windows.windows[n].off = off;
	c->windows.windows[n].number = number;
	atomic_store(&c->windows.windows[n].len, len);
	atomic_store(&c->windows.n, n + 1);
	return 0;
}

static int state_slots_take_name(struct slots_carried *c, const char *value)
{
	struct slots_names *names = &c->windows.names[0];
	unsigned window;

	if (names->n == SLOTS_PARTS_MAX || sscanf(value, "%u", &window) != 1 ||
	    window >= atomic_load(&c->windows.n))
		return -EBADMSG;
	names->window[names->n++] = (uint16_t)window;
	return 0;
}

static int state_slots_take_selected(struct slots_carried *c, const char *value)
{
	uint32_t selected;

	if (sscanf(value, "%" SCNu32, &selected) != 1)
		return -EBADMSG;
	c->windows.names[0].selected = selected;
	return 0;
}

static int state_slots_take_opened(struct slots_carried *c, const char *value)
{
	uint32_t opened;

	if (sscanf(value, "%" SCNu32, &opened) != 1)
		return -EBADMSG;
	c->opened = opened;
	return 0;
}

static int state_slots_take_lost(struct slots_carried *c, const char *value)
{
	int32_t lost[SLOTS_LOST_MAX];

	if (sscanf(value, "%" SCNd32 " %" SCNd32, &lost[0], &lost[1]) != SLOTS_LOST_MAX)
		return -EBADMSG;
	memcpy(c->lost, lost, sizeof(lost));
	return 0;
}

static int state_slots_take_sum(struct slots_carried *c, const char *value)
{
	struct slots_sum s;

	if (sscanf(value,
		   "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
		   " %" SCNu64 " %" SCNu64,
		   &s.reads, &s.read_bytes, &s.writes, &s.write_bytes, &s.flushes, &s.discards,
		   &s.others, &s.errors) != 8)
		return -EBADMSG;
	c->sum = s;
	return 0;
}

int state_slots_take(struct slots_carried *c, const char *key, const char *value)
{
	static const struct {
		const char *key;
		int (*take)(struct slots_carried *c, const char *value);
	} keys[] = {
		{"slots.opened", state_slots_take_opened},
		{"slots.lost", state_slots_take_lost},
		{"slots.sum", state_slots_take_sum},
		{"slots.attr", state_slots_take_attr},
		{"slots.window", state_slots_take_window},
		{"slots.name", state_slots_take_name},
		{"slots.selected", state_slots_take_selected},
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].key, key) == 0)
			return keys[i].take(c, value);
	return 0;
}
