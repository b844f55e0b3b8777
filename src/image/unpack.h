/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_UNPACK_H
#define FUSEIMG_UNPACK_H

/*
 * The last few compressed units that were unpacked: a client that reads one in pieces would
 * otherwise pay for the whole unit with each piece.
 *
 * An entry is named by its place in the host's file and is never stale: fuseimg writes no
 * compressed units, so what once stood packed at a place is either still that, or no table names
 * it.
 */

#include <stdint.h>

#include "base/thread.h"
#include "format/format.h"

enum {
	UNPACK_ENTRIES_MAX = 16,
};

struct unpack_entry {
	struct mutex
		lock; /* held while unpacking: a second reader of the unit waits for the first */
	bool valid GUARDED_BY(lock);
	uint64_t host_off GUARDED_BY(lock);
	uint64_t host_len GUARDED_BY(lock);
	void *unit PT_GUARDED_BY(lock); /* img->unit bytes, made on first use */
};

struct unpack_cache {
	unsigned n;
	struct unpack_entry entries[UNPACK_ENTRIES_MAX];
};

/* unit: bytes of an allocation unit; decides how many entries there are. */
void unpack_init(struct unpack_cache *c, uint64_t unit);
void unpack_done(struct unpack_cache *c);

/* len guest bytes at off, which lie inside the PACKED extent. */
int unpack_read(struct unpack_cache *c, struct image *img, const struct extent *ext, void *buf,
		size_t len, uint64_t off);

#endif
