/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The image layer over the toy format: what is read, what is copied, what is flushed, and when. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/checked.h"
#include "image/image.h"
#include "toy.h"

static struct diag diag;

/* Opens "base" as a raw disk of 0xbb bytes (two units), any other name as a toy over itself. */
static int opener_open(struct image_opener *o, const char *parent, enum image_role role,
		       const char *name, bool writable, struct store **ret, struct diag *d)
{
	uint8_t base[2 * TOY_UNIT];

	assert_false(writable);
	assert_int_equal(role, IMAGE_ROLE_BACKING);
	if (strcmp(name, "missing") == 0)
		return diag_set(d, -ENOENT, "missing");
	if (strcmp(name, "endless") == 0) {
		*ret = toy_store(name, "endless");
		return 0;
	}
	memset(base, 0xbb, sizeof(base));
	return store_memory_from(name, base, sizeof(base), MIB(1), ret);
}

static struct image_opener opener = {opener_open};

static struct image *open_toy(const char *backing, bool read_only)
{
	struct image_options o = {.read_only = read_only, .opener = &opener};
	struct image *img = NULL;

	assert_int_equal(image_open(toy_store("toy", backing), &o, &img, &diag), 0);
	return img;
}

static void assert_bytes(struct image *img, uint64_t off, size_t len, uint8_t byte)
{
	uint8_t buf[TOY_UNIT];

	while (len > 0) {
		size_t n = min_u64(len, sizeof(buf));

		assert_int_equal(image_read(img, buf, n, off), 0);
		for (size_t i = 0; i < n; i++)
			if (buf[i] != byte)
				fail_msg("byte %llu is %02x, not %02x",
					 (unsigned long long)(off + i), buf[i], byte);
		off += n;
		len -= n;
	}
}

static void fill(struct image *img, uint64_t off, size_t len, uint8_t byte)
{
	uint8_t buf[4 * TOY_UNIT];

	memset(buf, byte, sizeof(buf));
	assert_int_equal(image_write(img, buf, len, off), 0);
}

static void test_empty(void **state)
{
	struct image *img = open_toy(NULL, false);

	assert_int_equal(image_size(img), TOY_SIZE);
	assert_bytes(img, 0, TOY_SIZE, 0);
	assert_int_equal(image_close(img), 0);
}

static void test_ranges(void **state)
{
	struct image *img = open_toy(NULL, false);
	char c[2] = {0};

	assert_int_equal(image_read(img, c, 2, TOY_SIZE - 1), -EINVAL);
	assert_int_equal(image_write(img, c, 2, TOY_SIZE - 1), -EINVAL);
	assert_int_equal(image_read(img, c, 2, UINT64_MAX), -EINVAL);
	assert_int_equal(image_zero(img, TOY_SIZE, 1), -EINVAL);
	assert_int_equal(image_write(img, c, 1, TOY_SIZE - 1), 0);
	assert_int_equal(image_close(img), 0);
}

static void test_read_only(void **state)
{
	struct image *img = open_toy(NULL, true);

	assert_int_equal(image_write(img, "x", 1, 0), -EROFS);
	assert_int_equal(image_zero(img, 0, 1), -EROFS);
	assert_int_equal(image_resize(img, 1, &diag), -EROFS);
	assert_int_equal(image_flush(img), 0);
	assert_int_equal(image_close(img), 0);
}

/* New space that reads as zeroes over zeroes: nothing to copy, nothing to flush. */
static void test_first_write_of_zeroes(void **state)
{
	struct image *img = open_toy(NULL, false);
	struct toy *t = toy_of(img);

	fill(img, 100, 10, 1);
	assert_int_equal(t->links, 1);
	assert_int_equal(t->flushes, 0);
	assert_bytes(img, 0, 100, 0);
	assert_bytes(img, 100, 10, 1);
	assert_bytes(img, 110, TOY_UNIT, 0);
	fill(img, 105, 10, 2); /* in place now */
	assert_int_equal(t->allocs, 1);
	assert_int_equal(t->settles, 1); /* after the link that asked for it */
	assert_bytes(img, 105, 10, 2);
	assert_int_equal(image_close(img), 0);
}

/* New space with something else in it: the zeroes around are written, and flushed before the link.
 */
static void test_first_write_stale(void **state)
{
	struct image *img = open_toy(NULL, false);
	struct toy *t = toy_of(img);
	uint8_t junk[3 * TOY_UNIT];

	memset(junk, 0xee, sizeof(junk));
	assert_int_equal(store_write(img->store, junk, sizeof(junk), TOY_HOST), 0);
	t->stale = true;
	fill(img, TOY_UNIT - 10, TOY_UNIT + 20, 1);
	assert_int_equal(t->unflushed_links, 0);
	assert_bytes(img, 0, TOY_UNIT - 10, 0);
	assert_bytes(img, TOY_UNIT - 10, TOY_UNIT + 20, 1);
	assert_bytes(img, 2 * TOY_UNIT + 10, TOY_UNIT - 10, 0);
	assert_int_equal(image_close(img), 0);
}

static void test_copy_from_backing(void **state)
{
	struct image *img = open_toy("base", false);
	struct toy *t = toy_of(img);

	assert_bytes(img, 0, 2 * TOY_UNIT, 0xbb);
	assert_bytes(img, 2 * TOY_UNIT, TOY_UNIT, 0); /* the base ends here */
	fill(img, 1000, 1, 5);
	assert_bytes(img, 0, 1000, 0xbb);
	assert_bytes(img, 1000, 1, 5);
	assert_bytes(img, 1001, 2 * TOY_UNIT - 1001, 0xbb);
	/* the copies reached the disk before the entry that names them */
	assert_int_equal(t->unflushed_links, 0);
	assert_true(t->flushes > 0);
	/* also where a whole unit was replaced: an entry without its bytes would show zeroes */
	fill(img, TOY_UNIT, TOY_UNIT, 6);
	assert_int_equal(t->unflushed_links, 0);
	assert_int_equal(image_close(img), 0);
}

static void test_shared_and_packed(void **state)
{
	struct image *img = open_toy(NULL, false);
	struct toy *t = toy_of(img);

	fill(img, 0, TOY_UNIT, 3);
	t->units[0].shared = true; /* a snapshot was taken */
	t->units[1].kind = EXTENT_PACKED;
	assert_bytes(img, TOY_UNIT, TOY_UNIT / 2, toy_packed_byte(TOY_UNIT));
	assert_bytes(img, TOY_UNIT + TOY_UNIT / 2, TOY_UNIT / 2, toy_packed_byte(TOY_UNIT));
	assert_int_equal(t->unpacks, 1); /* the second half came from the cache */
	fill(img, TOY_UNIT - 1, 2, 4);
	assert_bytes(img, 0, TOY_UNIT - 1, 3);
	assert_bytes(img, TOY_UNIT - 1, 2, 4);
	assert_bytes(img, TOY_UNIT + 1, TOY_UNIT - 1, toy_packed_byte(TOY_UNIT));
	assert_int_equal(t->links, 3);
	assert_int_equal(t->unflushed_links, 1); /* the very first, over zeroes */
	assert_int_equal(image_close(img), 0);
}

/* What cannot be written is taken back, and what was there stays. */
static void test_failures(void **state)
{
	struct image *img = open_toy("base", false);
	struct toy *t = toy_of(img);

	t->fail_write = -ENOSPC;
	assert_int_equal(image_write(img, "x", 1, 10), -ENOSPC);
	assert_int_equal(t->abandons, 1);
	assert_int_equal(t->links, 0);
	t->fail_link = -EIO;
	assert_int_equal(image_write(img, "x", 1, 10), -EIO);
	assert_int_equal(t->abandons, 1); /* link() keeps what it cannot publish */
	assert_bytes(img, 0, 2 * TOY_UNIT, 0xbb);
	assert_int_equal(image_write(img, "\x07", 1, 10), 0);
	assert_bytes(img, 10, 1, 7);
	assert_int_equal(image_close(img), 0);
}

/* The last unit of a host's file may be unfinished; whole units that are gone were cut off. */
static void test_cut_file(void **state)
{
	struct image *img = open_toy(NULL, false);

	fill(img, 0, 2 * TOY_UNIT, 3);
	assert_int_equal(store_resize(img->store, TOY_HOST + TOY_UNIT + 100), 0);
	assert_bytes(img, 0, TOY_UNIT + 100, 3);
	assert_bytes(img, TOY_UNIT + 100, TOY_UNIT - 100, 0);
	assert_int_equal(store_resize(img->store, TOY_HOST + 100), 0);
	assert_bytes(img, 0, 100, 3);
	assert_int_equal(image_read(img, (char[1]){0}, 1, TOY_UNIT), -EUCLEAN);
	assert_int_equal(image_close(img), 0);
}

static void test_allocate(void **state)
{
	struct image *img = open_toy("base", false);
	struct toy *t = toy_of(img);

	assert_int_equal(image_allocate(img, TOY_UNIT + 5, 2 * TOY_UNIT), 0);
	assert_int_equal(t->units[0].kind, EXTENT_PARENT);
	assert_int_equal(t->units[1].kind, EXTENT_DATA);
	assert_int_equal(t->units[3].kind, EXTENT_DATA);
	assert_bytes(img, 0, 2 * TOY_UNIT, 0xbb);
	assert_bytes(img, 2 * TOY_UNIT, 2 * TOY_UNIT, 0);
	assert_int_equal(image_close(img), 0);
}

static void test_zero_and_resize(void **state)
{
	struct image *img = open_toy("base", false);

	fill(img, 0, 2 * TOY_UNIT, 9);
	assert_int_equal(image_zero(img, 10, TOY_UNIT), 0);
	assert_bytes(img, 0, 10, 9);
	assert_bytes(img, 10, TOY_UNIT, 0);
	assert_bytes(img, TOY_UNIT + 10, TOY_UNIT - 10, 9);
	assert_int_equal(image_resize(img, TOY_UNIT, &diag), 0);
	assert_int_equal(image_size(img), TOY_UNIT);
	assert_int_equal(image_read(img, (char[1]){0}, 1, TOY_UNIT), -EINVAL);
	assert_int_equal(image_resize(img, MIB(1), &diag), -EFBIG);
	assert_int_equal(image_size(img), TOY_UNIT);
	assert_int_equal(image_close(img), 0);
}

/* Parts of a unit are written, but not where they read as zeroes already. */
static void test_zero_parts(void **state)
{
	struct image *img = open_toy("base", false);
	struct toy *t = toy_of(img);

	assert_int_equal(image_zero(img, TOY_UNIT + 7, 100), 0);
	assert_int_equal(t->allocs, 1);
	assert_bytes(img, TOY_UNIT, 7, 0xbb);
	assert_bytes(img, TOY_UNIT + 7, 100, 0);
	assert_bytes(img, TOY_UNIT + 107, TOY_UNIT - 107, 0xbb);
	assert_int_equal(image_discard(img, 5 * TOY_UNIT + 7, 2 * TOY_UNIT), 0);
	assert_int_equal(t->allocs, 1);
	assert_int_equal(t->units[5].kind, EXTENT_PARENT);
	assert_int_equal(t->units[6].kind, EXTENT_ZERO);
	assert_int_equal(t->units[7].kind, EXTENT_PARENT);
	assert_int_equal(image_close(img), 0);
}

static void test_map_and_seek(void **state)
{
	struct image *img = open_toy("base", false);
	struct image_extent e;
	uint64_t off;

	fill(img, 5 * TOY_UNIT, 2 * TOY_UNIT, 1);
	assert_int_equal(image_map(img, 0, TOY_SIZE, &e), 0);
	assert_true(e.mapped && e.depth == 1 && e.len == 2 * TOY_UNIT && e.host_off == 0);
	assert_int_equal(image_map(img, 2 * TOY_UNIT, TOY_SIZE - 2 * TOY_UNIT, &e), 0);
	assert_true(e.zero && e.len == 3 * TOY_UNIT);
	assert_int_equal(image_map(img, 5 * TOY_UNIT, TOY_SIZE - 5 * TOY_UNIT, &e), 0);
	assert_true(e.mapped && e.depth == 0 && e.len == 2 * TOY_UNIT && e.host_off == TOY_HOST);

	assert_int_equal(image_seek(img, 0, UINT64_MAX, false, &off), 0);
	assert_int_equal(off, 2 * TOY_UNIT);
	assert_int_equal(image_seek(img, off, UINT64_MAX, true, &off), 0);
	assert_int_equal(off, 5 * TOY_UNIT);
	assert_int_equal(image_seek(img, 7 * TOY_UNIT, UINT64_MAX, true, &off), -ENXIO);
	assert_int_equal(image_seek(img, 7 * TOY_UNIT + 1, UINT64_MAX, false, &off), 0);
	assert_int_equal(off, 7 * TOY_UNIT + 1);
	assert_int_equal(image_seek(img, TOY_SIZE, UINT64_MAX, false, &off), -ENXIO);
	assert_int_equal(image_close(img), 0);
}

static void test_open_errors(void **state)
{
	struct image_options o = {.opener = &opener};
	struct image *img = NULL;
	struct store *s;

	assert_int_equal(store_memory_from("disk", "data", 4, MIB(1), &s), 0);
	assert_int_equal(image_open(s, &o, &img, &diag), -EMEDIUMTYPE);
	assert_non_null(strstr(diag.text, "format=raw"));

	assert_int_equal(image_open(toy_store("toy", "missing"), &o, &img, &diag), -ENOENT);
	assert_int_equal(image_open(toy_store("toy", "endless"), &o, &img, &diag), -ELOOP);
	assert_non_null(strstr(diag.text, "32"));
	/* a backing file without magic whose overlay does not call it raw */
	assert_int_equal(image_open(toy_store("toy", "unstated"), &o, &img, &diag), -EMEDIUMTYPE);
	assert_non_null(strstr(diag.text, "qemu-img rebase"));
	o.opener = NULL;
	assert_int_equal(image_open(toy_store("toy", "base"), &o, &img, &diag), -EACCES);
	o.format = "nonsense";
	assert_int_equal(image_open(toy_store("toy", NULL), &o, &img, &diag), -EMEDIUMTYPE);
	assert_null(img);

	assert_int_equal(store_memory_from("disk", "data", 4, MIB(1), &s), 0);
	o = (struct image_options){.read_only = true};
	o.snapshot = "one";
	assert_int_equal(image_open(s, &o, &img, &diag), -EOPNOTSUPP);
	assert_non_null(strstr(diag.text, "raw images have no internal snapshots"));
	assert_int_equal(store_memory_from("disk", "data", 4, MIB(1), &s), 0);
	o.read_only = false;
	assert_int_equal(image_open(s, &o, &img, &diag), -EROFS);
	assert_null(img);

	assert_int_equal(store_memory_from("disk", "data", 4, MIB(1), &s), 0);
	o = (struct image_options){.format = "raw"};
	assert_int_equal(image_open(s, &o, &img, &diag), -EROFS);
	assert_non_null(strstr(diag.text, "raw images can only be read"));

	assert_int_equal(store_memory_from("disk", "data", 4, MIB(1), &s), 0);
	o = (struct image_options){.read_only = true};
	assert_int_equal(image_open(s, &o, &img, &diag), 0);
	assert_string_equal(img->format->name, "raw");
	assert_int_equal(image_close(img), 0);
}

enum { WRITERS = 4, ROUNDS = 200 };

struct writer {
	pthread_t thread;
	struct image *img;
	unsigned i;
};

/* Each writer owns every WRITERS-th run of 64 bytes, so that all of them meet in every unit. */
static void *writer_run(void *data)
{
	struct writer *w = data;
	uint8_t buf[64], back[64];

	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t off = (round * 37 % (TOY_SIZE / 64 / WRITERS) * WRITERS + w->i) * 64;

		memset(buf, (int)(round ^ w->i), sizeof(buf));
		if (image_write(w->img, buf, sizeof(buf), off) < 0 ||
		    image_read(w->img, back, sizeof(back), off) < 0 ||
		    memcmp(buf, back, sizeof(buf)) != 0)
			return w;
	}
	return NULL;
}

/* First writes of many threads to the same units: nobody's bytes are lost, each unit is allocated
 * once. */
static void test_writers_meet(void **state)
{
	struct image *img = open_toy("base", false);
	struct writer w[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){.img = img, .i = i};
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_run, &w[i]), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		void *failed;

		pthread_join(w[i].thread, &failed);
		assert_null(failed);
	}
	assert_true(toy_of(img)->links <= TOY_UNITS);
	assert_int_equal(image_close(img), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_first_write_of_zeroes),
		cmocka_unit_test(test_first_write_stale),
		cmocka_unit_test(test_copy_from_backing),
		cmocka_unit_test(test_shared_and_packed),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_cut_file),
		cmocka_unit_test(test_allocate),
		cmocka_unit_test(test_zero_and_resize),
		cmocka_unit_test(test_zero_parts),
		cmocka_unit_test(test_map_and_seek),
		cmocka_unit_test(test_open_errors),
		cmocka_unit_test(test_writers_meet),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
