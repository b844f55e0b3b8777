/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_ABI_H
#define FUSEIMG_ABI_H

/* The kernel's protocol, and what is newer in it than Debian 12's linux/fuse.h (7.37). */

#include <linux/fuse.h>

#ifndef FUSE_DIRECT_IO_ALLOW_MMAP /* 7.39 */
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif

#ifndef FOPEN_NOFLUSH /* 7.35 */
#define FOPEN_NOFLUSH (1 << 5)
#endif

#ifndef FOPEN_PARALLEL_DIRECT_WRITES /* 7.38 */
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif

/* The version that we speak: fixed, so that it does not depend on where we were built. */
enum {
	ABI_MAJOR = 7,
	ABI_MINOR = 39,
};

/* Opcodes are an enum in the header, so #ifndef cannot find them. */
enum {
	ABI_OP_SYNCFS = 50,  /* 7.34 */
	ABI_OP_TMPFILE = 51, /* 7.37 */
	ABI_OP_STATX = 52,   /* 7.39 */
	ABI_OP_MAX = 64,     /* room above what is known */
};

/* fuse_init_in and fuse_init_out as they were before INIT_EXT and before 7.23. */
enum {
	ABI_INIT_IN_MIN = 16, /* up to flags */
	ABI_INIT_OUT_22 = 24,
};

#endif
