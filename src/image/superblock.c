/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/superblock.h"

#include <blkid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/io.h"

enum {
	SUPERBLOCK_PIECE = 64 * 1024,
	SUPERBLOCK_HEAD = 1024 * 1024,
	SUPERBLOCK_TAIL = 256 * 1024,
	SUPERBLOCK_MFT = 64 * 1024, /* of NTFS: the first records of its master file table */
};

/* A part of the disk, and the file that stands for it. */
struct superblock_copy {
	struct image *img;
	uint64_t off, len;
	int fd;
};

static bool superblock_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* len bytes at off of the part, as far as it reaches. What is zero stays a hole. */
static int superblock_fill(struct superblock_copy *c, uint64_t off, uint64_t len)
{
	uint8_t buf[SUPERBLOCK_PIECE];

	if (off >= c->len)
		return 0;
	for (len = min_u64(len, c->len - off); len > 0;) {
		size_t n = (size_t)min_u64(len, sizeof(buf));
		int r = image_read(c->img, buf, n, c->off + off);

		if (r == 0 && !superblock_zero(buf, n))
			r = io_pwrite(c->fd, buf, n, off);
		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

/* libblkid takes an NTFS for one only when it has seen this table, which may be anywhere. */
static int superblock_fill_ntfs(struct superblock_copy *c)
{
	uint8_t boot[512];
	uint64_t mft;

	if (c->len < sizeof(boot) || io_pread(c->fd, boot, sizeof(boot), 0) < 0 ||
	    memcmp(boot + 3, "NTFS    ", 8) != 0)
		return 0;
	if (!checked_mul(le64_get(boot + 0x30), (uint64_t)le16_get(boot + 0x0b) * boot[0x0d], &mft))
		return 0;
	return superblock_fill(c, mft, SUPERBLOCK_MFT);
}

static void superblock_value(blkid_probe probe, const char *name, char *buf, size_t size)
{
	const char *value = NULL;

	if (blkid_probe_lookup_value(probe, name, &value, NULL) == 0)
		snprintf(buf, size, "%s", value);
}

static int superblock_probe(int fd, struct superblock *ret)
{
	blkid_probe probe = blkid_new_probe();

	if (!probe)
		return -ENOMEM;
	if (blkid_probe_set_device(probe, fd, 0, 0) == 0 &&
	    blkid_probe_enable_superblocks(probe, 1) == 0 &&
	    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_UUID |
							     BLKID_SUBLKS_LABEL) == 0 &&
	    blkid_do_safeprobe(probe) == 0) {
		superblock_value(probe, "TYPE", ret->type, sizeof(ret->type));
		superblock_value(probe, "UUID", ret->uuid, sizeof(ret->uuid));
		superblock_value(probe, "LABEL", ret->label, sizeof(ret->label));
	}
	blkid_free_probe(probe);
	return 0;
}

int superblock_read(struct image *img, uint64_t off, uint64_t len, struct superblock *ret)
{
	_cleanup_close_ int fd = memfd_create("fuseimg-superblocks", MFD_CLOEXEC);
	struct superblock_copy copy = {img, off, len, fd};
	struct superblock found = {0};
	int r;

	if (fd < 0 || ftruncate(fd, (off_t)len) < 0)
		return -errno;
	r = superblock_fill(&copy, 0, SUPERBLOCK_HEAD);
	if (r == 0)
		r = superblock_fill(&copy, len - min_u64(len, SUPERBLOCK_TAIL), SUPERBLOCK_TAIL);
	if (r == 0)
		r = superblock_fill_ntfs(&copy);
	if (r == 0)
		r = superblock_probe(fd, &found);
	if (r == 0)
		*ret = found;
	return r;
}
