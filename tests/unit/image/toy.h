/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_TOY_H
#define FUSEIMG_TOY_H

/*
 * A format for tests, whose tables are plain memory: 16 units of 4 KiB that a test can put in any
 * state, and counters of what the image layer asked for. Stands in for the table of real formats.
 */

#include "base/thread.h"
#include "format/format.h"

enum {
	TOY_UNIT = 4096,
	TOY_UNITS = 16,
	TOY_SIZE = TOY_UNIT * TOY_UNITS - 100, /* the last unit is not whole */
	TOY_HOST = TOY_UNIT,		       /* first byte that is handed out */
};

struct toy_unit {
	enum extent_kind kind;
	bool shared;
	uint64_t host_off;
};

struct toy {
	struct mutex lock;
	struct toy_unit units[TOY_UNITS];
	uint64_t next; /* host byte that alloc() hands out next */
	bool stale;    /* new space does not read as zeroes */
	unsigned allocs, links, abandons, unpacks, flushes, settles;
	unsigned unflushed_links; /* links of an extent that was written and not flushed */
	bool dirty;		  /* the store was written since its last flush */
	int fail_link;		  /* errno for the next link() */
	int fail_write;		  /* errno for the next write to the store */
};

/* A store that begins with the toy's magic and names a backing file (NULL: none). */
struct store *toy_store(const char *name, const char *backing);
/* The toy behind an open image. */
struct toy *toy_of(struct image *img);
/* What unpack() makes of the unit at guest offset off. */
uint8_t toy_packed_byte(uint64_t off);

#endif
