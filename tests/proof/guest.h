/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROOF_GUEST_H
#define FUSEIMG_PROOF_GUEST_H

/*
 * What the client of a disk knows, and may ask for after a power cut.
 *
 * The clock is the length of the journal. Every sector has a history of contents, each with the
 * times when the request was made and answered. After a cut at time k a sector may hold any content
 * whose request was made before k, but nothing older than the last one that was answered before the
 * flush that was answered before k was asked for. A request that failed leaves either content. The
 * size of the disk is one more such cell; what a smaller size cut off is as it was where the old
 * size is still there, for that is one change.
 *
 * Inside a sector that a request covers in part, that is promised for each byte, and no more: who
 * relies on sectors writes sectors. (Zeroes that only a table entry says and that are not flushed,
 * then a few bytes on top: these are written beside the zeroes, one after the other.)
 *
 * Threads may use it at once where they change different sectors.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/thread.h"
#include "image/image.h"
#include "store/journal.h"

enum { GUEST_SECTOR = 512 };

#define GUEST_NOW SIZE_MAX /* no cut: what is answered is there, flushed or not */

struct guest_content {
	struct guest_content *older;
	size_t asked, answered; /* answered: SIZE_MAX where it is not, or failed */
	bool partial;		/* the request covered a part of the sector */
	bool cut;		/* zeroes: it was behind the end of the disk */
	uint64_t size;		/* of the disk's size */
	char bytes[];		/* of a sector */
};

struct guest_flush {
	size_t asked, answered;
};

struct guest {
	struct journal *clock; /* NULL: it stands still */
	size_t n_sectors;
	struct guest_content **sectors; /* the newest of each */
	struct guest_content *size;
	struct mutex lock;
	struct guest_flush *flushes GUARDED_BY(lock);
	size_t n_flushes GUARDED_BY(lock);
};

/* Knows what it reads from img of the first `capacity` bytes; behind the end there are zeroes. */
void guest_init(struct guest *g, struct journal *clock, struct image *img, uint64_t capacity);
void guest_done(struct guest *g);

/* buf NULL: zeroes. Every ask is followed by one answer() to the same range: 0 or an error. */
void guest_ask_write(struct guest *g, const void *buf, uint64_t len, uint64_t off);
void guest_answer(struct guest *g, uint64_t len, uint64_t off, int result);
void guest_ask_resize(struct guest *g, uint64_t size);
void guest_answer_resize(struct guest *g, int result);
/* Takes what is there now for the newest, after a failure. It must be something that there may be.
 */
void guest_observe(struct guest *g, struct image *img);
/* The time, for guest_flushed(). */
size_t guest_ask_flush(struct guest *g);
void guest_flushed(struct guest *g, size_t asked);

/* True where img is what it may be at time k. Else, or where it cannot be read, why (static). */
bool guest_accepts(struct guest *g, struct image *img, size_t k, char *why, size_t why_size);

#endif
