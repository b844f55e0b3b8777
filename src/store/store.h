/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STORE_H
#define FUSEIMG_STORE_H

/*
 * A store is a flat array of bytes on the host: a regular file, a block device, a piece of memory.
 *
 * The functions below check their arguments once and continue partial transfers; an
 * implementation (struct store_ops) may trust its caller. All of them may be called by any number
 * of threads at once; overlapping writes have no defined order. Offsets and lengths are bytes,
 * returns are negative errno unless said otherwise. A write on a read-only store answers -EROFS.
 *
 * Past the end of a store there is nothing: store_read() comes back short. What that means is the
 * caller's to say (see image/io.c).
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/diag.h"

struct store;

/* What stat(2) would say of it. */
struct store_stat {
	uint64_t size;	    /* bytes */
	uint64_t allocated; /* bytes that take space on the host */
	uint32_t block;	    /* preferred I/O size of the host, bytes */
	struct timespec mtime, ctime;
	uint64_t dev, ino; /* identity; 0, 0 where there is none (memory). Block devices: dev is the
			      device's own number, ino is 0, so that two nodes of one disk compare
			      equal */
};

/*
 * One implementation. close, read and stat are always there, the others may be NULL: write
 * (read-only kind), discard and allocate (-EOPNOTSUPP), zero (written as zeroes by the wrapper),
 * map (all data), fd (-1).
 */
struct store_ops {
	const char *kind; /* "file", "memory", ... */
	/* Frees all that the implementation holds, its struct included; the wrapper frees name. */
	void (*close)(struct store *s);
	/* Bytes read; fewer than len only at the end of the store. */
	ssize_t (*read)(struct store *s, void *buf, size_t len, uint64_t off);
	/* All or an error. Past the end the store grows where its kind can. */
	int (*write)(struct store *s, const void *buf, size_t len, uint64_t off);
	/* Like write, and these bytes can be read back after a power cut; nothing is said of others
	 * that were written before. Cheaper than a flush where much else is unwritten. NULL: write
	 * and flush. */
	int (*write_durable)(struct store *s, const void *buf, size_t len, uint64_t off);
	/* Data and the metadata needed to read it back are on stable storage. */
	int (*flush)(struct store *s);
	/* The range reads as zeroes and gives its space back. -EOPNOTSUPP where it cannot. */
	int (*discard)(struct store *s, uint64_t off, uint64_t len);
	/* The range reads as zeroes; space need not be given back. Never changes the size. */
	int (*zero)(struct store *s, uint64_t off, uint64_t len);
	/* Space is reserved, contents and size stay as they are. */
	int (*allocate)(struct store *s, uint64_t off, uint64_t len);
	int (*resize)(struct store *s, uint64_t size);
	/* Is the byte at off (inside the store) data, and for how many bytes does that stay so (at
	 * most len)? */
	int (*map)(struct store *s, uint64_t off, uint64_t len, bool *ret_data, uint64_t *ret_len);
	int (*stat)(struct store *s, struct store_stat *ret);
	int (*fd)(struct store *s);
	/* See store_keep(). NULL: a flush that failed means nothing for later ones. */
	void (*keep)(struct store *s, atomic_int *lost);
};

/* The head of every implementation's own struct. */
struct store {
	const struct store_ops *ops;
	char *name;	     /* as a person would call it: the path. Owned. */
	bool read_only;	     /* constant after open */
	bool fixed;	     /* cannot grow: a block device. Set before the first call */
	uint64_t fixed_size; /* fixed: its bytes, so that no write has to ask the host */
};

/* Fills the head; name is copied. 0 or -ENOMEM. */
int store_init(struct store *s, const struct store_ops *ops, const char *name, bool read_only);

/* Takes NULL; returns NULL. Does not flush. */
struct store *store_close(struct store *s);

ssize_t store_read(struct store *s, void *buf, size_t len, uint64_t off);
/* -EIO where the store ends inside the range. */
int store_read_full(struct store *s, void *buf, size_t len, uint64_t off);
/* A growing write past the end of a fixed store is -ENOSPC. */
int store_write(struct store *s, const void *buf, size_t len, uint64_t off);
/* On stable storage when it returns: these bytes, and a size of the store that they lie inside. */
int store_write_durable(struct store *s, const void *buf, size_t len, uint64_t off);
/* On a read-only store there is nothing to flush: 0. */
int store_flush(struct store *s);
/*
 * A kind whose flushes all fail once one has failed remembers it in *lost from now on: what that
 * flush said, 0: none has. The memory outlives the store and its process, so that who comes after
 * one that was killed knows it, too. Before other threads use the store.
 */
void store_keep(struct store *s, atomic_int *lost);
/* What lies past the end of the store is left out of discard and zero; neither changes the size. */
int store_discard(struct store *s, uint64_t off, uint64_t len);
int store_zero(struct store *s, uint64_t off, uint64_t len);
int store_allocate(struct store *s, uint64_t off, uint64_t len);
/* A fixed store: growing is -ENOSPC, shrinking -EOPNOTSUPP. */
int store_resize(struct store *s, uint64_t size);
/* What lies past the end of the store is a hole. len > 0. */
int store_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data, uint64_t *ret_len);
int store_stat(struct store *s, struct store_stat *ret);
int store_size(struct store *s, uint64_t *ret);
/* The file descriptor behind an identity-mapped store (for passthrough and zero-copy), or -1. */
int store_fd(struct store *s);

static inline void store_closep(struct store **s)
{
	store_close(*s);
}
#define _cleanup_store_ _cleanup_(store_closep)

/*
 * file.c: a regular file or a block device. Takes over fd, also on failure. The fd's access mode
 * decides whether the store is read-only; anything but a regular file or a block device is refused
 * with -EMEDIUMTYPE.
 */
int store_file_new(int fd, const char *name, struct store **ret, struct diag *diag);

/* memory.c: sparse memory that grows as it is written, up to limit bytes (then -ENOSPC). */
int store_memory_new(const char *name, uint64_t limit, struct store **ret);
/* A copy of data stands at offset 0. */
int store_memory_from(const char *name, const void *data, size_t len, uint64_t limit,
		      struct store **ret);

#endif
