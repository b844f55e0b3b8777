/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_TEST_FORMAT_HARNESS_H
#define FUSEIMG_TEST_FORMAT_HARNESS_H

/*
 * What image/ does with a driver, in its plainest form: read = map and copy, write = alloc, fill,
 * link, zero = unmap, and write what that cannot. So a driver is tested alone, and qemu-img judges
 * what it left on the disk.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/diag.h"
#include "base/thread.h"
#include "format/format.h"

struct disk {
	struct image img;
	struct disk *backing; /* read where the image says PARENT; NULL: zeroes */
	struct rwlock io_lock;
};

/* A fresh directory as the working directory, and its end. */
int harness_setup(void **state);
int harness_teardown(void **state);

/* True where QEMU's tools are there. With CI set in the environment they have to be. */
bool harness_have_qemu(void);

/* Runs a shell command; a failure fails the test. */
void sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The exit status of a shell command. */
int sh_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Opens a file and, by its own name, the external data file that it asks for. */
void disk_open(struct disk *d, const char *path, bool writable);
/* The same on a store, which it takes over; 0 or the driver's error and sentence. */
int disk_open_store(struct disk *d, struct store *store, const char *format, bool writable,
		    struct diag *diag);
/* For reading: an internal snapshot of the qcow2 image in a store. */
int disk_open_snapshot(struct disk *d, struct store *store, const char *snapshot,
		       struct diag *diag);
/* For reading: a qcow2 file, with so many bytes for its tables. */
void disk_open_bounded(struct disk *d, const char *path, uint64_t table_cache);
/* finish (where writable) and close. */
void disk_close(struct disk *d);
/* close without finish: what a power cut leaves, had all writes arrived. */
void disk_kill(struct disk *d);

int disk_read(struct disk *d, void *buf, size_t len, uint64_t off);
int disk_write(struct disk *d, const void *buf, size_t len, uint64_t off);
int disk_flush(struct disk *d);
int disk_unmap(struct disk *d, uint64_t off, uint64_t len, enum unmap_how how);
int disk_resize(struct disk *d, uint64_t size);

/* A memory store with the content of a file (64 MiB at most), and back. */
void store_load(const char *path, struct store **ret);
void store_dump(struct store *s, const char *path);

/* Numbers that are the same in every run. */
uint64_t random_next(uint64_t *state);

/* Bytes that tell their position: every 8 bytes differ for different (seed, off). */
void pattern(void *buf, size_t len, uint64_t off, uint64_t seed);

/* Options of qemu-img create, NULL behind the last: images of many kinds. */
extern const char *const shapes[];
enum { SHAPE_SIZE = 9000960 }; /* ends inside a cluster, whatever its size */
/* Makes "img" (and "img.data") of that shape. Writes, zeroes and discards at odd places, and
 * compressed clusters where the shape can have them. */
void shape_fill(const char *shape) __attribute__((nonnull));

/* Asserts that the disk reads as the raw file does. */
void assert_reads_as(struct disk *d, const char *raw_path);
/* Asserts that qemu-img check finds neither corruption nor leaks (or, when leaks_allowed, no
 * corruption). */
void assert_check(const char *path, bool leaks_allowed);

#endif
