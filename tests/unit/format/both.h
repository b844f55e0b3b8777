/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_TEST_FORMAT_BOTH_H
#define FUSEIMG_TEST_FORMAT_BOTH_H

/* A disk and a raw file that are changed alike, so that one can be held against the other. */

#include "harness.h"

void write_both(struct disk *d, const char *raw, uint64_t off, size_t len, uint64_t seed);

/* n writes of up to `most` bytes at random places, with a flush now and then. */
void write_random(struct disk *d, const char *raw, int n, size_t most, uint64_t seed);
/* The same with zeroes and discards among them. */
void change_random(struct disk *d, const char *raw, int n, size_t most, uint64_t seed);

/* Everybody reads the same out of "img": we, QEMU (which counts in whole sectors), and the raw
 * file. */
void assert_read_alike(const char *raw);
/* And QEMU finds nothing wrong with it, leaks included. */
void assert_same(const char *raw);

/* A disk over a longer or shorter one: "base" of 5000192 bytes, all of them 5. */
enum { BASE_SIZE = 5000192 };
void base_make(void);
/* Makes "img" over it, and "raw" with what it reads as, and opens both files. */
void base_open(struct disk *base, struct disk *d, const char *options, uint64_t size);
/* Closes both, and asserts that QEMU reads through them what "raw" has. */
void base_close(struct disk *base, struct disk *d);

#endif
