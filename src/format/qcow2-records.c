/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Lists of records of any length, read one after the other: none is in memory as a whole. */

#include <stdlib.h>

#include <errno.h>

#include "base/cleanup.h"
#include "format/qcow2.h"

int qcow2_records_snapshots(const struct qcow2 *q, struct qcow2_records *ret, struct diag *diag)
{
	struct qcow2_records list = {
		.img = q->img, .what = "snapshot table", .at = q->snapshots_offset, .diag = diag};
	int r = store_size(q->img->store, &list.end);

	if (r < 0)
		return diag_errno(diag, r, "%s: cannot read its size", q->img->name);
	list.end = min_u64(list.end, list.at + QCOW2_SNAPSHOT_TABLE_MAX);
	*ret = list;
	return 0;
}

void qcow2_records_align(struct qcow2_records *list)
{
	list->at = round_up(list->at, 8);
}

int qcow2_records_take(struct qcow2_records *list, void *buf, size_t len)
{
	const char *name = list->img->name;
	int r;

	if (!range_inside(list->at, len, list->end))
		return diag_set(list->diag, -EUCLEAN, "%s: the %s is cut off at 0x%llx", name,
				list->what, (ull)list->at);
	r = buf ? store_read_full(list->img->store, buf, len, list->at) : 0;
	if (r < 0)
		return diag_errno(list->diag, r, "%s: cannot read the %s", name, list->what);
	list->at += len;
	return 0;
}

int qcow2_records_take_string(struct qcow2_records *list, size_t len, char **ret)
{
	_cleanup_free_ char *s = calloc(1, len + 1);
	int r;

	if (!s)
		return -ENOMEM;
	r = qcow2_records_take(list, s, len);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}
