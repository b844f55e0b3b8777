/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/windows.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/checked.h"

_Static_assert((int)SLOTS_PARTS_MAX == (int)PARTITIONS_MAX, "each partition has a window");

static struct slots_windows *windows_all(const struct share *share)
{
	return &share->slots.head->windows;
}

/* What shared memory says is not beyond doubt: whoever wrote it had parsed the image. */
static unsigned windows_made(const struct share *share)
{
	uint32_t n = atomic_load_explicit(&windows_all(share)->n, memory_order_acquire);

	return (unsigned)min_u64(n, SLOTS_WINDOWS_MAX);
}

static const struct slots_names *windows_names(const struct share *share)
{
	struct slots_windows *all = windows_all(share);

	return &all->names[atomic_load_explicit(&all->live, memory_order_acquire) & 1];
}

unsigned windows_count(const struct share *share)
{
	return (unsigned)min_u64(windows_names(share)->n, SLOTS_PARTS_MAX);
}

uint64_t windows_name(const struct share *share, unsigned i, char buf[WINDOWS_NAME_MAX])
{
	uint16_t w = windows_names(share)->window[i];

	snprintf(buf, WINDOWS_NAME_MAX, "part%u",
		 windows_all(share)->windows[w % SLOTS_WINDOWS_MAX].number);
	return SLOTS_WINDOW_NODE + w;
}

uint64_t windows_lookup(const struct share *share, const char *name, size_t len)
{
	char buf[WINDOWS_NAME_MAX];

	for (unsigned i = 0; i < windows_count(share); i++) {
		uint64_t id = windows_name(share, i, buf);

		if (strlen(buf) == len && memcmp(buf, name, len) == 0)
			return id;
	}
	return 0;
}

bool windows_selected(const struct share *share, char buf[WINDOWS_NAME_MAX])
{
	uint32_t number = windows_names(share)->selected;

	snprintf(buf, WINDOWS_NAME_MAX, "part%u", number);
	return number != 0;
}

bool windows_place(const struct share *share, uint64_t id, uint64_t *ret_off, uint64_t *ret_len)
{
	const struct slots_window *w;

	if (id < SLOTS_WINDOW_NODE || id - SLOTS_WINDOW_NODE >= windows_made(share))
		return false;
	w = &windows_all(share)->windows[id - SLOTS_WINDOW_NODE];
	if (ret_off)
		*ret_off = w->off;
	if (ret_len)
		*ret_len = atomic_load_explicit(&w->len, memory_order_relaxed);
	return true;
}

/* The window of a partition, made where there is none yet. -ENOSPC: no more can be made. */
static int windows_find(struct share *share, const struct partition *p)
{
	struct slots_windows *all = windows_all(share);
	unsigned n = windows_made(share);

	for (unsigned i = 0; i < n; i++)
		if (all->windows[i].number == p->number && all->windows[i].off == p->off)
			return (int)i;
	if (n == SLOTS_WINDOWS_MAX)
		return -ENOSPC;
	all->windows[n].number = p->number;
	all->windows[n].off = p->off;
	atomic_store(&all->windows[n].len, p->len);
	atomic_store(&all->n, n + 1);
	return (int)n;
}

static void __attribute__((format(printf, 2, 3)))
windows_log(struct share *share, const char *fmt, ...)
{
	char text[DIAG_MAX];
	va_list ap;

	if (!share->log)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	share->log(share->log_data, LOG_WARNING, 0, UINT64_MAX, text);
}

/* What is not shown, and why. */
static void windows_log_table(struct share *share, const struct partition_table *table)
{
	char buf[64];

	if (table->backup)
		windows_log(share, "the partition table at the beginning of the disk is damaged; "
				   "the one at the end is used");
	for (unsigned i = 0; i < table->n; i++) {
		const struct partition *p = &table->entries[i];

		if (p->flaw != PARTITION_GOOD && p->flaw != PARTITION_CONTAINER)
			windows_log(share, "part%u is left out: it %s", p->number,
				    partition_flaw_text(p, buf, sizeof(buf)));
	}
	if (table->more)
		windows_log(share, "%u partitions are left out: %d are the limit", table->more,
			    PARTITIONS_MAX);
}

/* Sizes that shrink come before the new names, those that grow behind them: at no time do two
 * names show the same bytes. */
static void windows_set_sizes(struct share *share, const struct slots_names *names,
			      const uint64_t len[], bool grow)
{
	for (unsigned i = 0; i < names->n; i++) {
		struct slots_window *w = &windows_all(share)->windows[names->window[i]];

		if ((len[i] > atomic_load(&w->len)) == grow)
			atomic_store(&w->len, len[i]);
	}
}

/* The new names, not in force yet, and the sizes that go with them. */
static int windows_collect(struct share *share, const struct partition_table *table,
			   struct slots_names *names, uint64_t len[])
{
	names->n = 0;
	for (unsigned i = 0; table && i < table->n; i++) {
		const struct partition *p = &table->entries[i];
		int w;

		if (p->flaw != PARTITION_GOOD)
			continue;
		w = windows_find(share, p);
		if (w < 0)
			return w;
		len[names->n] = p->len;
		names->window[names->n++] = (uint16_t)w;
	}
	return 0;
}

void windows_set(struct share *share, const struct partition_table *table, unsigned selected)
{
	struct slots_windows *all = windows_all(share);
	uint32_t next = !(atomic_load(&all->live) & 1);
	struct slots_names *names = &all->names[next];
	uint64_t len[SLOTS_PARTS_MAX] = {0};

	if (windows_collect(share, table, names, len) < 0) {
		windows_log(share, "the partition table was changed too often: unmount and mount "
				   "again to see what it says now");
		return;
	}
	names->selected = table ? selected : 0;
	windows_set_sizes(share, names, len, false);
	atomic_store(&all->live, next);
	windows_set_sizes(share, names, len, true);
	if (table)
		windows_log_table(share, table);
}
