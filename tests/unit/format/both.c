/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "both.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

void write_both(struct disk *d, const char *raw, uint64_t off, size_t len, uint64_t seed)
{
	_cleanup_close_ int fd = open(raw, O_RDWR | O_CLOEXEC);
	_cleanup_free_ char *buf = malloc(len);

	assert_true(fd >= 0);
	pattern(buf, len, off, seed);
	assert_int_equal(disk_write(d, buf, len, off), 0);
	assert_int_equal(io_pwrite(fd, buf, len, off), 0);
}

static void unmap_both(struct disk *d, const char *raw, uint64_t off, size_t len,
		       enum unmap_how how)
{
	_cleanup_close_ int fd = open(raw, O_RDWR | O_CLOEXEC);
	_cleanup_free_ char *zeroes = calloc(1, len);

	assert_true(fd >= 0);
	assert_int_equal(disk_unmap(d, off, len, how), 0);
	assert_int_equal(io_pwrite(fd, zeroes, len, off), 0);
}

/* kinds 2: writes alone, 4: and as many zeroes and discards. */
static void both_random(struct disk *d, const char *raw, int n, size_t most, uint64_t kinds,
			uint64_t seed)
{
	uint64_t state = seed;

	for (int i = 0; i < n; i++) {
		uint64_t off = random_next(&state) % d->img.size;
		uint64_t kind = random_next(&state) % kinds;
		size_t len = (size_t)min_u64(random_next(&state) % most + 1, d->img.size - off);

		if (random_next(&state) % 4 == 0) /* up to the end of the disk */
			off = d->img.size - len;
		if (kind < 2)
			write_both(d, raw, off, len, seed + (uint64_t)i);
		else
			unmap_both(d, raw, off, len, kind == 2 ? UNMAP_ZERO : UNMAP_DISCARD);
		if (i % 16 == 15)
			assert_int_equal(disk_flush(d), 0);
	}
}

void write_random(struct disk *d, const char *raw, int n, size_t most, uint64_t seed)
{
	both_random(d, raw, n, most, 2, seed);
}

void change_random(struct disk *d, const char *raw, int n, size_t most, uint64_t seed)
{
	both_random(d, raw, n, most, 4, seed);
}

void assert_read_alike(const char *raw)
{
	uint64_t size;
	struct disk d;

	disk_open(&d, "img", false);
	size = d.img.size;
	assert_reads_as(&d, raw);
	disk_close(&d);
	sh("qemu-img convert -O raw img out && cmp -n %llu out '%s'",
	   (unsigned long long)round_down(size, 512), raw);
}

void assert_same(const char *raw)
{
	assert_check("img", false);
	assert_read_alike(raw);
}

void base_make(void)
{
	sh("qemu-img create -q -f qcow2 base %d", BASE_SIZE);
	sh("qemu-io -c 'write -P 5 0 %d' base >/dev/null", BASE_SIZE);
}

void base_open(struct disk *base, struct disk *d, const char *options, uint64_t size)
{
	print_message("%s\n", options);
	sh("rm -f img; qemu-img create -q -f qcow2 -b base -F qcow2 -o %s img %llu", options,
	   (unsigned long long)size);
	sh("qemu-img convert -O raw img raw");
	disk_open(base, "base", false);
	disk_open(d, "img", true);
	d->backing = base;
	d->img.parent_size = base->img.size;
}

void base_close(struct disk *base, struct disk *d)
{
	assert_reads_as(d, "raw");
	disk_close(d);
	disk_close(base);
	assert_check("img", false);
	sh("qemu-img convert -O raw img out && cmp out raw");
}
