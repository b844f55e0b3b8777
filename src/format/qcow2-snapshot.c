/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Internal snapshots: each has an L1 table of its own and the disk's size of its time; below the L1
 * table, all is shared with the others and with the active layer. To read one, its L1 table takes
 * the place of the active one before anything else is loaded; the rest of the driver does not know.
 *
 * Host clusters of a snapshot keep their refcount while it exists, so nobody overwrites them.
 *
 * The table is read anew for each walk. An image may hold 65536 snapshots with names of 64 KiB; one
 * of them is in memory at a time.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/endian.h"
#include "format/qcow2.h"

enum {
	QCOW2_SNAPSHOT_LIST_MAX = 500, /* bytes of a sentence that say which there are */
	QCOW2_SNAPSHOT_SHOWN_MAX = 64, /* bytes of a name there */
};

/* One entry of the table. */
struct qcow2_snapshot {
	unsigned number; /* from 0 */
	char *id, *name;
	struct qcow2_disk_snapshot head;
	uint32_t extra_len; /* how much of extra is stated; the rest is zero */
	struct qcow2_disk_snapshot_extra extra;
};

/* What is not 0 ends the walk. */
typedef int qcow2_snapshot_fn(void *data, const struct qcow2_snapshot *s);

static int qcow2_snapshot_take_extra(struct qcow2_records *list, struct qcow2_snapshot *s)
{
	uint32_t len = be32_get(&s->head.extra_data_size);
	int r;

	if (len > QCOW2_SNAPSHOT_EXTRA_MAX)
		return diag_set(list->diag, -EUCLEAN,
				"%s: entry %u of the snapshot table has %u bytes of extra data, at "
				"most %u are allowed",
				list->img->name, s->number, len, QCOW2_SNAPSHOT_EXTRA_MAX);
	s->extra_len = (uint32_t)min_u64(len, sizeof(s->extra));
	r = qcow2_records_take(list, &s->extra, s->extra_len);
	return r < 0 ? r : qcow2_records_take(list, NULL, len - s->extra_len);
}

static int qcow2_snapshot_take(struct qcow2_records *list, struct qcow2_snapshot *s)
{
	int r;

	qcow2_records_align(list);
	r = qcow2_records_take(list, &s->head, sizeof(s->head));
	if (r == 0)
		r = qcow2_snapshot_take_extra(list, s);
	if (r == 0)
		r = qcow2_records_take_string(list, be16_get(&s->head.id_str_size), &s->id);
	if (r == 0)
		r = qcow2_records_take_string(list, be16_get(&s->head.name_size), &s->name);
	return r;
}

static int qcow2_snapshot_each(struct qcow2 *q, qcow2_snapshot_fn *fn, void *data,
			       struct diag *diag)
{
	struct qcow2_records list;
	int r = qcow2_records_snapshots(q, &list, diag);

	for (unsigned i = 0; r == 0 && i < q->nb_snapshots; i++) {
		struct qcow2_snapshot s = {.number = i};

		r = qcow2_snapshot_take(&list, &s);
		if (r == 0)
			r = fn(data, &s);
		free(s.id);
		free(s.name);
	}
	return r;
}

static bool qcow2_snapshot_has_size(const struct qcow2_snapshot *s)
{
	return s->extra_len >= offsetof(struct qcow2_disk_snapshot_extra, icount);
}

/* For those who only look */

struct qcow2_snapshot_show {
	format_snapshot_fn *fn;
	void *data;
};

static int qcow2_snapshot_show_one(void *data, const struct qcow2_snapshot *s)
{
	const struct qcow2_snapshot_show *show = data;
	bool large = s->extra_len >= offsetof(struct qcow2_disk_snapshot_extra, disk_size);
	struct format_snapshot shown = {
		.id = s->id,
		.name = s->name,
		.date_sec = be32_get(&s->head.date_sec),
		.date_nsec = be32_get(&s->head.date_nsec),
		.vm_clock_nsec = be64_get(&s->head.vm_clock_nsec),
		.vm_state_size = large ? be64_get(&s->extra.vm_state_size_large)
				       : be32_get(&s->head.vm_state_size),
		.has_size = qcow2_snapshot_has_size(s),
		.size = be64_get(&s->extra.disk_size),
	};

	return show->fn(show->data, &shown);
}

int qcow2_snapshots(struct image *img, format_snapshot_fn *fn, void *data, struct diag *diag)
{
	struct qcow2_snapshot_show show = {.fn = fn, .data = data};

	return qcow2_snapshot_each(qcow2_of(img), qcow2_snapshot_show_one, &show, diag);
}

/* For those who read one */

/* The entries that match: how many, and the first of them (without its strings). */
struct qcow2_snapshot_match {
	unsigned n;
	struct qcow2_snapshot first;
};

struct qcow2_snapshot_search {
	const char *wanted;
	struct qcow2_snapshot_match by_id, by_name;
};

static void qcow2_snapshot_note(struct qcow2_snapshot_match *match, const struct qcow2_snapshot *s)
{
	if (match->n++ > 0)
		return;
	match->first = *s;
	match->first.id = match->first.name = NULL;
}

static int qcow2_snapshot_compare(void *data, const struct qcow2_snapshot *s)
{
	struct qcow2_snapshot_search *search = data;

	if (strcmp(s->id, search->wanted) == 0)
		qcow2_snapshot_note(&search->by_id, s);
	if (strcmp(s->name, search->wanted) == 0)
		qcow2_snapshot_note(&search->by_name, s);
	return 0;
}

/* The beginning of a list for a sentence: `1 "one", 2 "two"` */
struct qcow2_snapshot_names {
	const char *wanted; /* only these; NULL: all */
	unsigned left_off;
	size_t len;
	char text[QCOW2_SNAPSHOT_LIST_MAX];
};

static int qcow2_snapshot_name_one(void *data, const struct qcow2_snapshot *s)
{
	char id[QCOW2_SNAPSHOT_SHOWN_MAX], name[QCOW2_SNAPSHOT_SHOWN_MAX];
	struct qcow2_snapshot_names *names = data;
	size_t room = sizeof(names->text) - names->len;
	int n;

	if (names->wanted && strcmp(s->id, names->wanted) != 0 &&
	    strcmp(s->name, names->wanted) != 0)
		return 0;
	diag_quote(id, sizeof(id), s->id, strlen(s->id));
	diag_quote(name, sizeof(name), s->name, strlen(s->name));
	n = snprintf(names->text + names->len, room, "%s%s \"%s\"", names->len ? ", " : "", id,
		     name);
	if (names->left_off == 0 && (size_t)n < room) {
		names->len += (size_t)n;
	} else {
		names->text[names->len] = '\0';
		names->left_off++;
	}
	return 0;
}

/* There is not one that is meant. */
static int qcow2_snapshot_refuse(struct qcow2 *q, const char *wanted, unsigned matches,
				 struct diag *diag)
{
	struct qcow2_snapshot_names names = {.wanted = matches ? wanted : NULL};
	char quoted[QCOW2_SNAPSHOT_SHOWN_MAX], more[32] = "";
	int r = qcow2_snapshot_each(q, qcow2_snapshot_name_one, &names, diag);

	if (r < 0)
		return r;
	diag_quote(quoted, sizeof(quoted), wanted, strlen(wanted));
	if (names.left_off > 0)
		snprintf(more, sizeof(more), " and %u more", names.left_off);
	if (matches > 1)
		return diag_set(diag, -ENOTUNIQ,
				"%s: %u snapshots are called \"%s\"; say which by its id: %s%s",
				q->img->name, matches, quoted, names.text, more);
	return diag_set(diag, -ENOENT, "%s: there is no snapshot \"%s\"; there are: %s%s",
			q->img->name, quoted, names.text, more);
}

/* Its L1 table and size take the place of the active layer's. */
static int qcow2_snapshot_adopt(struct qcow2 *q, const struct qcow2_snapshot *s, struct diag *diag)
{
	uint64_t off = be64_get(&s->head.l1_table_offset), size = q->img->size;
	uint32_t l1_size = be32_get(&s->head.l1_size);
	int r = 0;

	if (qcow2_snapshot_has_size(s))
		size = be64_get(&s->extra.disk_size);
	else if (q->version >= 3)
		return diag_set(diag, -EUCLEAN,
				"%s: entry %u of the snapshot table does not say how large its "
				"disk is: run qemu-img check -r all",
				q->img->name, s->number);
	if (l1_size > 0)
		r = qcow2_header_table(q->img, q, "L1 table", off, l1_size * UINT64_C(8), diag);
	if (r == 0)
		r = qcow2_header_size(q->img, q, size, l1_size, diag);
	if (r < 0) {
		diag_prefix(diag, "entry %u of the snapshot table", s->number);
		return r;
	}
	q->l1_offset = off;
	return 0;
}

int qcow2_snapshot_choose(struct qcow2 *q, struct diag *diag)
{
	struct qcow2_snapshot_search search = {.wanted = q->img->snapshot};
	const struct qcow2_snapshot_match *match = &search.by_id;
	int r;

	if (q->data_file)
		return diag_set(
			diag, -EOPNOTSUPP,
			"%s: has an external data file, so it has no internal snapshots that "
			"could be read",
			q->img->name);
	if (q->nb_snapshots == 0)
		return diag_set(diag, -ENOENT, "%s: has no internal snapshots", q->img->name);
	r = qcow2_snapshot_each(q, qcow2_snapshot_compare, &search, diag);
	if (r < 0)
		return r;
	if (match->n == 0)
		match = &search.by_name;
	if (match->n != 1)
		return qcow2_snapshot_refuse(q, search.wanted, match->n, diag);
	return qcow2_snapshot_adopt(q, &match->first, diag);
}
