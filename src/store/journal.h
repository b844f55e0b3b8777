/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_JOURNAL_H
#define FUSEIMG_JOURNAL_H

/*
 * For tests: records what is done to one or several stores, and shows what a power cut at any point
 * may leave of them. Not shipped (store_test in meson).
 *
 *	j = journal_new();
 *	journal_attach(j, memory, &s);		disk 0 of the journal, as it is now
 *	... an image is opened on s, written, flushed, closed ...
 *	for (size_t k = 0; k <= journal_length(j); k++)
 *		for (uint64_t seed = 0; seed < 8; seed++) {
 *			journal_cut(j, 0, k, JOURNAL_TORN, seed, &after);
 *			... an image opened on `after` must be sound ...
 *		}
 *
 * The model. A disk is an array of sectors of 512 bytes, and a size. A flush makes durable what was
 * completed before it, on its own disk; other disks it leaves alone. When the power goes after k
 * records, each sector that was changed since its disk's last flush holds one of the contents it
 * had since then, no matter which contents other sectors hold. So writes are lost, reordered and
 * torn; but a sector is never a mixture, and never has a later change without the earlier ones to
 * the same sector, as both a page cache and a drive's cache write the sector as it then is. A
 *durable write has reached the disk when it returned, and with it a size that it lies inside. The
 * size is one more such cell; when a cut off part is durable, so is what cut it off: growing again
 * shows zeroes there.
 *
 * A durable write that is the last record of all was under way when the power went, so it is like
 * any other. A flush takes time: what other threads change while it runs it may leave out, and here
 *always does. A flush that fails loses, as Linux does: each sector that it was to write has reached
 *the disk or not, and stays so for good, though it reads as if it had. Only a later change to the
 * sector makes a later flush write it.
 *
 * Put a fault store over a journalled one, not under it: a call that fails is not recorded, but for
 * journal_fail_flush().
 */

#include "store/store.h"

enum journal_loss {
	JOURNAL_KEEP, /* all that was issued has reached the disk */
	JOURNAL_LOSE, /* nothing since the last flush has */
	JOURNAL_DROP, /* some of the unflushed records have, whole (seed) */
	JOURNAL_TORN, /* some sectors of some of them have (seed) */
	JOURNAL_NTH,  /* the disk's outcome number `seed` of all journal_outcomes() */
};

enum journal_kind {
	JOURNAL_WRITE,
	JOURNAL_ZERO,
	JOURNAL_DISCARD,
	JOURNAL_RESIZE,
	JOURNAL_FLUSH,
};

struct journal_record {
	enum journal_kind kind;
	unsigned disk;
	uint64_t off, len;		  /* RESIZE: what lies between the two sizes */
	uint64_t size_before, size_after; /* of the disk */
	void *data;			  /* WRITE */
	bool durable;			  /* WRITE: by store_write_durable() */
	size_t upto;			  /* FLUSH: records before this one were to be written */
	bool failed;			  /* FLUSH: and were not, not all of them */
};

struct journal;

/* NULL when out of memory. It must live longer than the stores it records. */
struct journal *journal_new(void);
/* Takes NULL; returns NULL. */
struct journal *journal_free(struct journal *j);

/*
 * *ret passes everything to inner and records it as the next disk (0, 1, ...). What inner holds now
 * is durable. Takes over inner, also on failure. Attach all disks before the first record.
 */
int journal_attach(struct journal *j, struct store *inner, struct store **ret);

/* From now on every flush takes at least so long, in which other threads go on. */
void journal_slow_flushes(struct journal *j, unsigned microseconds);

/* `skip` more flushes and durable writes succeed, then one fails with -EIO. UINT64_MAX: none. */
void journal_fail_flush(struct journal *j, uint64_t skip);

/* Records so far. Note it where an image_flush() has returned: from there on its data must be
 * found after every cut. */
size_t journal_length(struct journal *j);

/* Record i, for counting and for messages; valid until journal_free(), while nothing is recorded.
 */
const struct journal_record *journal_at(struct journal *j, size_t i);
/* "write of 8 bytes at 0x50000 of disk 0" */
const char *journal_describe(struct journal *j, size_t i, char *dst, size_t dst_size);

/*
 * A new memory store with what a disk holds when the power goes after the first k records. The
 * stores need not be open any more. Use one seed for all disks of one cut.
 */
int journal_cut(struct journal *j, unsigned disk, size_t k, enum journal_loss loss, uint64_t seed,
		struct store **ret);

/*
 * How many outcomes a power cut after k records may have on a disk, the same ones counted more than
 * once at times. UINT64_MAX: as many or more. Those of several disks are independent.
 */
int journal_outcomes(struct journal *j, unsigned disk, size_t k, uint64_t *ret);

static inline void journal_freep(struct journal **j)
{
	journal_free(*j);
}
#define _cleanup_journal_ _cleanup_(journal_freep)

#endif
