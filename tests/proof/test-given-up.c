/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Moments that the lives of the other proofs hardly meet. Space that was written to and given up:
 * what is made of it next is as new, also after a power cut. A reservation that is smaller than the
 * one before it, or ends in a new refcount block. A discard that failed and was done. */

#include "judge.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "format/qcow2.h"

enum {
	EXTENTS = 4096,
	ROOM = 400, /* clusters of a device */
	CUTS = 300,
};

static const struct kind small = {
	"small device",
	"qemu-img create -q -f qcow2 -o cluster_size=512 img 1050112",
	KIND_DEVICE,
};

/* Takes all that can be had, writes what looks like tables to it, and gives it up. */
static void spoil(struct image *img)
{
	static struct extent extents[EXTENTS];
	static uint64_t garbage[4096];
	uint64_t most = sizeof(garbage);
	int n = 0;

	memset(garbage, 0x80, sizeof(garbage));
	while (n < EXTENTS && img->format->alloc(img, 0, most, &extents[n]) == 0) {
		struct extent *ext = &extents[n++];

		assert_int_equal(store_write(ext->store, garbage, ext->len, ext->host_off), 0);
	}
	assert_in_range(n, 1, EXTENTS - 1);
	while (n > 0)
		img->format->abandon(img, &extents[--n]);
}

static void start(struct trial *t, struct scene *scene)
{
	scene_make(scene, &small);
	assert_int_equal(store_resize(scene->files[0], ROOM * 512), 0);
	trial_prepare(t, scene, 0);
	stack_open(&t->stack, false);
	spoil(t->stack.img);
	assert_int_equal(work_flush(&t->work), 0);
}

/* A sector in each of several L2 tables, which are new. */
static void write_far_apart(struct trial *t)
{
	char buf[GUEST_SECTOR];

	for (uint64_t off = 0; off < MIB(1); off += 64 * 512) {
		pattern(buf, sizeof(buf), off, off);
		guest_ask_write(&t->guest, buf, sizeof(buf), off);
		assert_int_equal(image_write(t->stack.img, buf, sizeof(buf), off), 0);
		guest_answer(&t->guest, sizeof(buf), off, 0);
	}
}

static void test_new_tables(void **state)
{
	uint64_t seed = 1;
	struct scene scene;
	struct trial t;

	if (!harness_have_qemu())
		skip();
	start(&t, &scene);
	write_far_apart(&t);
	trial_verify(&t);
	for (int i = 0; i < CUTS; i++)
		trial_judge_random(&t, journal_length(t.stack.journal), &seed);
	trial_done(&t);
	scene_done(&scene);
}

static const struct kind outside = {
	"data file",
	"qemu-img create -q -f qcow2 -o data_file=img.data img 1050112",
	0,
};

static void judge_all(struct trial *t)
{
	uint64_t seed = 2;

	trial_verify(t);
	for (int i = 0; i < CUTS; i++)
		trial_judge_random(t, journal_length(t->stack.journal), &seed);
}

static void write_small(struct trial *t, uint64_t off, size_t len)
{
	char buf[GUEST_SECTOR];

	pattern(buf, len, off, 5);
	guest_ask_write(&t->guest, buf, len, off);
	assert_int_equal(image_write(t->stack.img, buf, len, off), 0);
	guest_answer(&t->guest, len, off, 0);
}

/* A write to an external data file fails though all of it is there. What is punched afterwards
 * reads as zeroes, but not surely after a power cut. */
static void test_punched(void **state)
{
	static const struct fault_rule fails = {
		.ops = FAULT_WRITE, .times = 1, .error = -EIO, .whole = true};
	static char bytes[65536];
	struct scene scene;
	struct trial t;

	if (!harness_have_qemu())
		skip();
	scene_make(&scene, &outside);
	trial_prepare(&t, &scene, 1);
	stack_open(&t.stack, false);
	pattern(bytes, sizeof(bytes), 0, 4711);
	assert_int_equal(store_fault_add(t.stack.disks[1], &fails), 0);
	assert_int_equal(image_write(t.stack.img, bytes, sizeof(bytes), 0), -EIO);
	assert_int_equal(work_flush(&t.work), 0);
	assert_int_equal(image_discard(t.stack.img, 0, sizeof(bytes)), 0);
	write_small(&t, 4096, GUEST_SECTOR);
	judge_all(&t);
	trial_done(&t);
	scene_done(&scene);
}

static const struct kind unused = {
	"unused subclusters",
	"qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=16k img 1050112; "
	"qemu-io -c 'write -P 1 0 512' img >/dev/null; ",
	0,
};

/* Somebody has zeroed subclusters that are not in use, and has not flushed: opening does. */
static void test_unflushed(void **state)
{
	static char bytes[8192];
	struct store *disk;
	struct extent ext;
	struct scene scene;
	struct trial t;

	if (!harness_have_qemu())
		skip();
	scene_make(&scene, &unused);
	trial_prepare(&t, &scene, 1);
	disk = t.stack.disks[0];
	stack_open(&t.stack, true);
	assert_int_equal(t.stack.img->format->map(t.stack.img, 0, 512, 0, &ext), 0);
	assert_int_equal(stack_close(&t.stack), 0);
	pattern(bytes, sizeof(bytes), 0, 4711);
	assert_int_equal(store_write(disk, bytes, sizeof(bytes), ext.host_off + 512), 0);
	assert_int_equal(store_flush(disk), 0);
	assert_int_equal(store_zero(disk, ext.host_off + 512, sizeof(bytes)), 0);
	stack_open(&t.stack, false);
	write_small(&t, 2048 + 100, 200);
	judge_all(&t);
	trial_done(&t);
	scene_done(&scene);
}

static const struct kind plain = {
	"plain",
	"qemu-img create -q -f qcow2 img 1050112",
	0,
};

/* What was reserved is given back, and the file cut. It is not as long as before when a part of it
 * is reserved again: that has to be made durable once more. */
static void test_trimmed(void **state)
{
	struct scene scene;
	struct trial t;
	struct qcow2 *q;

	if (!harness_have_qemu())
		skip();
	scene_make(&scene, &plain);
	trial_prepare(&t, &scene, 0);
	stack_open(&t.stack, false);
	q = qcow2_of(t.stack.img);
	q->batch_min = q->batch_max = 256;
	write_small(&t, 0, GUEST_SECTOR);
	assert_int_equal(image_idle(t.stack.img), 0);
	assert_int_equal(image_idle(t.stack.img), 0);
	q->batch_min = q->batch_max = 16;
	write_small(&t, 65536, GUEST_SECTOR);
	judge_all(&t);
	trial_done(&t);
	scene_done(&scene);
}

/* 14 clusters are left in the first refcount block. */
static const struct kind used_up = {
	"used up",
	"qemu-img create -q -f qcow2 -o cluster_size=4k img 11M; "
	"qemu-io -c 'write -P 5 2700k 8100k' img >/dev/null; ",
	0,
};

/* A batch ends in a refcount block that is new, and the next moment the power goes. */
static void test_new_block(void **state)
{
	struct scene scene;
	struct trial t;

	if (!harness_have_qemu())
		skip();
	scene_make(&scene, &used_up);
	trial_prepare(&t, &scene, 1);
	stack_open(&t.stack, false);
	for (uint64_t i = 0; i < 20; i++)
		write_small(&t, i * 4096, GUEST_SECTOR);
	judge_all(&t);
	trial_done(&t);
	scene_done(&scene);
}

/* A discard fails though the entries were written. What is written to its place afterwards must not
 * stand where no entry leads to. */
static void fail_discard(const struct scene *scene, uint64_t seed)
{
	static const struct fault_rule fails = {
		.ops = FAULT_WRITE, .times = 1, .error = -EIO, .whole = true};
	struct trial t;

	trial_prepare(&t, scene, seed);
	stack_open(&t.stack, false);
	write_small(&t, 0, GUEST_SECTOR);
	assert_int_equal(work_flush(&t.work), 0);
	assert_int_equal(store_fault_add(t.stack.disks[0], &fails), 0);
	guest_ask_write(&t.guest, NULL, 65536, 0);
	assert_int_equal(image_discard(t.stack.img, 0, 65536), -EIO);
	guest_answer(&t.guest, 65536, 0, -EIO);
	guest_observe(&t.guest, t.stack.img);
	write_small(&t, 1024, GUEST_SECTOR);
	assert_int_equal(work_close(&t.work), 0);
	trial_judge_now(&t);
	trial_done(&t);
}

static void test_discard_fails(void **state)
{
	struct scene scene;

	if (!harness_have_qemu())
		skip();
	scene_make(&scene, &plain);
	fail_discard(&scene, 0); /* the entry says zero, and where */
	fail_discard(&scene, 1); /* the entry says nothing */
	scene_done(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_new_tables, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_punched, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_unflushed, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_trimmed, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_new_block, harness_setup, harness_teardown),
		cmocka_unit_test_setup_teardown(test_discard_fails, harness_setup,
						harness_teardown),
	};

	return cmocka_run_group_tests_name("proof/given-up", tests, NULL, NULL);
}
