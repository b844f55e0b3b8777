/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Space that was reserved, written to and given up: what is made of it next is as new, also after a
 * power cut. Other proofs hardly meet it, for the reservation has much that is untouched. */

#include "judge.h"

#include <string.h>

#include "base/checked.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_new_tables, harness_setup, harness_teardown),
	};

	return cmocka_run_group_tests_name("proof/given-up", tests, NULL, NULL);
}
