/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * COPIED in the active L1 and L2 tables: set where the refcount of what is named is exactly one.
 * Only what stands in the window is judged; its counters hold refcounts by now.
 */

#include <errno.h>

#include "format/qcow2-check.h"

/* 1 where the flag was mended, 0 where it is right or has to stay. */
static int qcow2_flag(struct qcow2_check *c, uint64_t cluster, uint64_t *entry, const char *what,
		      uint32_t index)
{
	bool copied = *entry & QCOW2_COPIED;
	uint32_t refcount;

	/* An external data file has no refcounts: whoever writes it may always write in place */
	if (cluster == UINT64_MAX)
		refcount = 1;
	else if (cluster - c->first < c->n)
		refcount = c->counts[cluster - c->first];
	else
		return 0;
	if (copied == (refcount == 1))
		return 0;
	qcow2_found(c, QCOW2_MISCOUNT, 1, "entry %u of the %s is 0x%llx: COPIED is %s, refcount %u",
		    index, what, (ull)*entry, copied ? "set" : "not set", refcount);
	if (c->repair < CHECK_REPAIR_COUNTS || c->rebuild)
		return 0;
	*entry ^= QCOW2_COPIED;
	return 1;
}

static int qcow2_flag_l1(struct qcow2_check *c, const struct qcow2_check_l1 *l1, uint32_t index,
			 uint64_t *entry)
{
	uint64_t off = *entry & QCOW2_OFFSET;

	if (!qcow2_check_place(c, off, c->q->cluster_size))
		return 0;
	return qcow2_flag(c, off >> c->q->cluster_bits, entry, "L1 table", index);
}

static int qcow2_flag_entry(struct qcow2_check *c, const struct qcow2_zone *table, uint32_t index,
			    uint64_t *e)
{
	const struct qcow2 *q = c->q;
	uint64_t mended[2] = {e[0], e[1]};

	qcow2_entry_mend(c, table, index, mended);
	if ((mended[0] & QCOW2_COMPRESSED) || (mended[0] | QCOW2_COPIED) != (e[0] | QCOW2_COPIED))
		return 0;
	if (q->data_file) {
		/* In every window alike: once is enough */
		if (c->first > 0 || !(mended[0] & QCOW2_OFFSET))
			return 0;
		return qcow2_flag(c, UINT64_MAX, e, "L2 table", index);
	}
	if (!(mended[0] & QCOW2_OFFSET))
		return 0;
	return qcow2_flag(c, (mended[0] & QCOW2_OFFSET) >> q->cluster_bits, e, "L2 table", index);
}

int qcow2_check_flags(struct qcow2_check *c)
{
	int r = 0;

	if (c->n_l1s > 0 && c->l1s[0].active)
		r = qcow2_check_each_l1(c, &c->l1s[0], qcow2_flag_l1);
	if (r == 0)
		r = qcow2_check_walk(c, true, qcow2_flag_entry);
	return r < 0 ? r : qcow2_patches_flush(c);
}
