/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_DIRECT_H
#define FUSEIMG_DIRECT_H

/*
 * The file store's way through a descriptor that was opened with O_DIRECT: any offset, length and
 * buffer, where the kernel takes aligned ones only.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct direct;

/* A range of bytes that one thread is changing; on its stack. */
struct direct_range {
	uint64_t start, end;
	bool alone; /* nobody else may change bytes in it meanwhile */
	struct direct_range *next;
};

/* fd stays the caller's. sector: a block device's logical block, 0 for a regular file. */
int direct_new(int fd, uint32_t sector, struct direct **ret);
/* Takes NULL; returns NULL. */
struct direct *direct_free(struct direct *d);

/* As io_pread() and io_pwrite(). */
ssize_t direct_read(struct direct *d, void *buf, size_t len, uint64_t off);
int direct_write(struct direct *d, const void *buf, size_t len, uint64_t off);

/*
 * Around all that changes the file: waits until nobody before us changes bytes of the same units,
 * as far as one of the two must be alone. direct_write() does so itself; what clears or cuts is the
 * caller's to enclose, what only reserves space need not be. Both take NULL for d.
 */
void direct_enter(struct direct *d, struct direct_range *range, uint64_t off, uint64_t len,
		  bool alone);
void direct_leave(struct direct *d, struct direct_range *range);

#endif
