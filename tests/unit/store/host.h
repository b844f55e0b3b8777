/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_TEST_HOST_H
#define FUSEIMG_TEST_HOST_H

/* Files and loop devices for the tests of store/. All of them vanish with their last descriptor. */

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "store/store.h"

/* Where the tests' files are: a file system with O_DIRECT and holes, and tmpfs. */
#define HOST_DISK "/var/tmp"
#define HOST_TMPFS "/dev/shm"

/* An unlinked file of size bytes in dir; open(2) flags. */
int host_file(const char *dir, int flags, uint64_t size);
struct store *host_store(const char *dir, int flags, uint64_t size);

/* A loop device of size bytes over an unlinked file. -1 with a printed reason where this needs what
 * we have not got (root, loop devices). It goes away with the descriptor. */
int host_loop(int flags, uint64_t size, unsigned sector);

/* A directory with a new ramfs, which cannot punch holes, in a mount namespace of this process;
 * NULL with a printed reason without root. */
const char *host_ramfs(void);

/* Bytes that tell where they stand. */
void host_pattern(void *buf, size_t len, uint64_t off, unsigned seed);
void host_assert_pattern(const void *buf, size_t len, uint64_t off, unsigned seed);
void host_assert_zero(const void *buf, size_t len);

uint64_t host_random(uint64_t *state);

/* Runs work(s, 0), work(s, 1), ... in n threads at once; each must return 0. */
void host_threads(unsigned n, int (*work)(struct store *s, unsigned id), struct store *s);

#endif
