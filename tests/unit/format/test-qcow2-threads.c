/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Many threads write, zero, discard, read and flush one image at once, each in clusters of its own,
 * as image/ promises. Meant for a build with -Db_sanitize=thread, too. */

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

enum {
	THREADS = 4,
	ROUNDS = 400,
	MOST = 20000, /* bytes of a write */
};

struct writer {
	pthread_t thread;
	struct disk *d;
	int raw;
	unsigned n; /* of THREADS */
	int error;
};

static int writer_write(struct writer *w, uint64_t off, size_t len, uint64_t seed)
{
	char buf[MOST];
	int r;

	pattern(buf, len, off, seed);
	r = disk_write(w->d, buf, len, off);
	return r < 0 ? r : io_pwrite(w->raw, buf, len, off);
}

static int writer_unmap(struct writer *w, uint64_t off, size_t len, enum unmap_how how)
{
	static const char zeroes[MOST];
	int r = disk_unmap(w->d, off, len, how);

	return r < 0 ? r : io_pwrite(w->raw, zeroes, len, off);
}

/* What stands in the raw file at a place of this writer is what the disk must hold. */
static int writer_verify(struct writer *w, uint64_t off, size_t len)
{
	char have[MOST], want[MOST];
	int r = disk_read(w->d, have, len, off);

	if (r < 0)
		return r;
	if (io_pread(w->raw, want, len, off) != (ssize_t)len)
		return -EIO;
	return memcmp(have, want, len) == 0 ? 0 : -EBADMSG;
}

static int writer_round(struct writer *w, int i, unsigned *seed)
{
	static const enum unmap_how hows[] = {UNMAP_ZERO, UNMAP_DISCARD};
	uint64_t unit = w->d->img.unit, units = div_round_up(w->d->img.size, unit * THREADS);
	uint64_t start = ((uint64_t)rand_r(seed) % units * THREADS + w->n) * unit;
	uint64_t room, off;
	size_t len;
	int r;

	if (start >= w->d->img.size)
		return 0;
	room = min_u64(unit, w->d->img.size - start);
	off = i % 7 ? start + (uint64_t)rand_r(seed) % room : start;
	len = (size_t)min_u64((uint64_t)rand_r(seed) % MOST + 1, start + room - off);
	if (i % 7 == 0)
		r = writer_unmap(w, off, len, hows[i % 2]);
	else
		r = i % 3 ? writer_write(w, off, len, (uint64_t)i) : writer_verify(w, off, len);
	if (r == 0 && i % 64 == 63)
		r = disk_flush(w->d);
	return r;
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	unsigned seed = w->n + 1;

	for (int i = 0; w->error == 0 && i < ROUNDS; i++)
		w->error = writer_round(w, i, &seed);
	return NULL;
}

static void run_writers(struct disk *d, const char *raw)
{
	struct writer writers[THREADS];
	_cleanup_close_ int fd = open(raw, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	for (unsigned i = 0; i < THREADS; i++) {
		writers[i] = (struct writer){.d = d, .raw = fd, .n = i};
		assert_int_equal(pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]),
				 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(writers[i].error, 0);
}

static void test_writers(void **state)
{
	static const char *const some[] = {
		"cluster_size=512",
		"cluster_size=512,refcount_bits=64",
		"cluster_size=4k",
		"cluster_size=64k",
		"cluster_size=2M",
		"extended_l2=on",
		"data_file=img.data",
		"compression_type=zstd,cluster_size=4k",
		"extended_l2=on,cluster_size=16k",
	};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		print_message("%s\n", some[i]);
		sh("rm -f img img.data");
		shape_fill(some[i]);
		sh("qemu-img convert -O raw img raw");
		if (!strstr(some[i], "data_file"))
			sh("qemu-img snapshot -c one img");
		disk_open(&d, "img", true);
		d.img.discard = true;
		run_writers(&d, "raw");
		assert_reads_as(&d, "raw");
		assert_null(d.img.damage);
		disk_close(&d);
		assert_check("img", false);
		sh("qemu-img convert -O raw img out && cmp out raw");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_writers, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
