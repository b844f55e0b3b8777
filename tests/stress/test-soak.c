/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The life of an image of tiny clusters and wide refcounts: threads fill it and discard from it, it
 * is closed, checked, compared and opened again, it grows; so its refcount blocks become many and
 * its refcount table and its L1 table have to move several times. In the end qemu-img judges it.
 *
 * FUSEIMG_TEST_SECONDS is how long lives are lived, FUSEIMG_TEST_SEED the first one's number.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>

#include "../unit/format/harness.h"
#include "base/checked.h"
#include "base/endian.h"
#include "base/io.h"
#include "image/image.h"
#include "rig.h"

typedef unsigned long long ull;

enum {
	SOAK_THREADS = 3,
	SOAK_PIECE = 40961, /* bytes that are one thread's; pieces take turns */
	SOAK_OPS = 60,	    /* of each thread, between opening and closing */
	SOAK_GROWTHS = 3,   /* of the refcount table, in every life */
	SOAK_MOVES = 2,	    /* of the L1 table, likewise */
};

static const struct soak_shape {
	const char *options;
	uint64_t size; /* what the disk grows to, from half of it */
} soak_shapes[] = {
	{"cluster_size=512,refcount_bits=64", MIB(36)},
	{"cluster_size=512,refcount_bits=16", MIB(100)},
	{"cluster_size=512,refcount_bits=64 -b base -F qcow2", MIB(30)},
	{"cluster_size=1k,refcount_bits=64", MIB(120)},
};

enum { SOAK_SHAPES_QUICK = 1 };

struct soak {
	const struct soak_shape *shape;
	struct image *img;
	char *flat; /* what the disk reads as */
	uint64_t size;
	unsigned growths, moves; /* of the refcount table, of the L1 table */
	uint32_t table_clusters;
	uint64_t l1_offset;
};

struct soak_thread {
	struct soak *soak;
	pthread_t thread;
	unsigned n;
	uint64_t random;
	int error;
};

static int soak_store(const char *name, bool writable, struct store **ret, struct diag *diag)
{
	return store_file_new(open(name, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC), name, ret,
			      diag);
}

static int soak_open_named(struct image_opener *opener, const char *parent, enum image_role role,
			   const char *name, bool writable, struct store **ret, struct diag *diag)
{
	return soak_store(name, writable, ret, diag);
}

static struct image *soak_open(bool writable)
{
	struct image_opener opener = {soak_open_named};
	struct image_options options = {.discard = true, .read_only = !writable, .opener = &opener};
	struct store *store;
	struct image *img = NULL;
	struct diag diag = {0};

	if (soak_store("img", writable, &store, &diag) < 0 ||
	    image_open(store, &options, &img, &diag) < 0)
		fail_msg("%s", diag.text);
	return img;
}

static int soak_write(struct soak_thread *t, uint64_t off, size_t len)
{
	char *flat = t->soak->flat + off;

	for (size_t i = 0; i < len; i++)
		flat[i] = (char)(random_next(&t->random) >> 5);
	return image_write(t->soak->img, flat, len, off);
}

static int soak_unmap(struct soak_thread *t, uint64_t off, size_t len, bool discard)
{
	memset(t->soak->flat + off, 0, len);
	return discard ? image_discard(t->soak->img, off, len) : image_zero(t->soak->img, off, len);
}

static int soak_verify(struct soak_thread *t, uint64_t off, size_t len)
{
	char have[SOAK_PIECE];
	int r = image_read(t->soak->img, have, len, off);

	if (r < 0)
		return r;
	return memcmp(have, t->soak->flat + off, len) == 0 ? 0 : -EBADMSG;
}

/* Somewhere in a piece of its own, half the time all of it. */
static int soak_op(struct soak_thread *t)
{
	uint64_t pieces = t->soak->size / SOAK_PIECE / SOAK_THREADS;
	uint64_t piece = random_next(&t->random) % pieces * SOAK_THREADS + t->n;
	uint64_t from = 0, to = SOAK_PIECE;

	if (random_next(&t->random) % 2) {
		from = random_next(&t->random) % SOAK_PIECE;
		to = from + 1 + random_next(&t->random) % (SOAK_PIECE - from);
	}
	from += piece * SOAK_PIECE;
	to += piece * SOAK_PIECE;
	switch (random_next(&t->random) % 16) {
	case 0:
		return soak_unmap(t, from, (size_t)(to - from), false);
	case 1:
	case 2:
		return soak_unmap(t, from, (size_t)(to - from), true);
	case 3:
		return soak_verify(t, from, (size_t)(to - from));
	case 4:
		return image_flush(t->soak->img);
	default:
		return soak_write(t, from, (size_t)(to - from));
	}
}

static void *soak_main(void *arg)
{
	struct soak_thread *t = arg;

	for (int i = 0; t->error == 0 && i < SOAK_OPS; i++)
		t->error = soak_op(t);
	return NULL;
}

static void soak_threads(struct soak *s, uint64_t seed)
{
	struct soak_thread threads[SOAK_THREADS];

	for (unsigned i = 0; i < SOAK_THREADS; i++) {
		threads[i] =
			(struct soak_thread){.soak = s, .n = i, .random = seed * SOAK_THREADS + i};
		assert_int_equal(pthread_create(&threads[i].thread, NULL, soak_main, &threads[i]),
				 0);
	}
	for (unsigned i = 0; i < SOAK_THREADS; i++)
		assert_int_equal(pthread_join(threads[i].thread, NULL), 0);
	for (unsigned i = 0; i < SOAK_THREADS; i++)
		assert_int_equal(threads[i].error, 0);
}

/* What the header says now. */
static void soak_look(struct soak *s)
{
	_cleanup_close_ int fd = open("img", O_RDONLY | O_CLOEXEC);
	uint8_t header[72];
	uint32_t clusters;
	uint64_t l1;

	assert_int_equal(io_pread(fd, header, sizeof(header), 0), sizeof(header));
	clusters = be32_get(header + 56);
	l1 = be64_get(header + 40);
	s->growths += s->table_clusters && clusters > s->table_clusters;
	s->moves += s->l1_offset && l1 != s->l1_offset;
	s->table_clusters = clusters;
	s->l1_offset = l1;
}

static void soak_found(struct check *check, bool leak, uint64_t n, const char *text)
{
	print_message("%llu %s: %s\n", (ull)n, leak ? "leaks" : "corruptions", text);
}

static void soak_check(void)
{
	struct check check = {.memory = MIB(1), .found = soak_found};
	_cleanup_store_ struct store *store = NULL;
	struct diag diag = {0};

	assert_int_equal(soak_store("img", false, &store, &diag), 0);
	if (image_check(store, NULL, &check, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_int_equal(check.leaks + check.corruptions, 0);
}

static void soak_compare(struct soak *s, struct image *img)
{
	_cleanup_free_ char *have = malloc(MIB(1));

	assert_int_equal(image_size(img), s->size);
	for (uint64_t off = 0; off < s->size; off += MIB(1)) {
		size_t n = (size_t)min_u64(MIB(1), s->size - off);

		assert_int_equal(image_read(img, have, n, off), 0);
		if (memcmp(have, s->flat + off, n) != 0)
			fail_msg("%s: differs behind %llu", s->shape->options, (ull)off);
	}
	assert_null(image_damage(img));
}

/* Between opening and closing; larger afterwards, in steps of any size. */
static void soak_episode(struct soak *s, uint64_t seed)
{
	uint64_t step = s->shape->size / 8 + seed % 1000;
	struct diag diag = {0};

	s->img = soak_open(true);
	soak_threads(s, seed);
	soak_compare(s, s->img);
	if (seed % 2 == 0 && s->size + step < s->shape->size) {
		s->size += step;
		if (image_resize(s->img, s->size, &diag) < 0)
			fail_msg("%s", diag.text);
	}
	assert_int_equal(image_close(s->img), 0);
	soak_look(s);
	soak_check();
	s->img = soak_open(false);
	soak_compare(s, s->img);
	assert_int_equal(image_close(s->img), 0);
}

static void soak_birth(struct soak *s, const struct soak_shape *shape)
{
	*s = (struct soak){.shape = shape, .size = shape->size / 4};
	s->flat = calloc(1, shape->size);
	assert_non_null(s->flat);
	sh("rm -f img base; qemu-img create -q -f qcow2 base %llu && "
	   "qemu-io -c 'write -q -P 7 1M 5M' base && "
	   "qemu-img create -q -f qcow2 -o %s img %llu",
	   (ull)s->size, shape->options, (ull)s->size);
	if (strstr(shape->options, "base"))
		memset(s->flat + MIB(1), 7, MIB(5));
	soak_look(s);
}

static void soak_death(struct soak *s)
{
	_cleanup_close_ int fd = open("flat", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	/* QEMU counts in whole sectors */
	assert_int_equal(io_pwrite(fd, s->flat, s->size / 512 * 512, 0), 0);
	assert_check("img", false);
	sh("qemu-img compare -q -f raw -F qcow2 flat img");
	free(s->flat);
}

/* A life ends when the refcount table has grown often enough, and so has L1. */
static void soak_live(const struct soak_shape *shape, uint64_t seed)
{
	struct soak s;
	unsigned n;

	soak_birth(&s, shape);
	for (n = 0; n < 200 && (s.growths < SOAK_GROWTHS || s.moves < SOAK_MOVES); n++)
		soak_episode(&s, seed * 1000 + n);
	print_message("%s: opened %u times, %u clusters of refcount table in the end, grown %u "
		      "times, L1 moved %u times\n",
		      shape->options, n, s.table_clusters, s.growths, s.moves);
	assert_true(s.growths >= SOAK_GROWTHS && s.moves >= SOAK_MOVES);
	soak_death(&s);
}

static void test_soak(void **state)
{
	const char *first = getenv("FUSEIMG_TEST_SEED");
	uint64_t seed = first ? strtoull(first, NULL, 10) : 1;
	double seconds = rig_seconds(3), end = rig_now() + seconds;
	uint64_t lives;
	size_t n = seconds > 20 ? ARRAY_SIZE(soak_shapes) : SOAK_SHAPES_QUICK;

	if (!harness_have_qemu())
		skip();
	for (lives = 0; lives < n || rig_now() < end; lives++)
		soak_live(&soak_shapes[lives % n], seed + lives);
	print_message("%llu lives in all\n", (ull)lives);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_soak, rig_setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
