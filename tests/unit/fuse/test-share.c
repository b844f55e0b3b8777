/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "rig.h"

static int set_up(void **state)
{
	struct rig *rig = rig_new();

	rig->config.growable = true;
	rig_open(rig);
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	rig_free(*state);
	return 0;
}

static void test_log(void **state)
{
	struct rig *rig = *state;

	share_log(&rig->share, -ENOSPC, 77, "writing %d things", 3);
	assert_int_equal(rig->logged, 1);
	assert_int_equal(rig->log_error, -ENOSPC);
	assert_int_equal(rig->log_off, 77);
	assert_string_equal(rig->log_text, "writing 3 things");
}

static void test_grow_never_shrinks(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(share_grow(&rig->share, RIG_SIZE + 1), 0);
	assert_int_equal(image_size(rig->image), RIG_SIZE + 1);
	assert_int_equal(share_grow(&rig->share, 10), 0);
	assert_int_equal(image_size(rig->image), RIG_SIZE + 1);
	assert_int_equal(share_resize(&rig->share, 10), 0);
	assert_int_equal(image_size(rig->image), 10);
}

static void test_full_host(void **state)
{
	struct rig *rig = *state;
	int r = share_grow(&rig->share, RIG_LIMIT + 1);

	assert_true(r < 0);
	assert_int_equal(image_size(rig->image), RIG_SIZE);
	assert_int_equal(rig->logged, 1);
	assert_int_equal(rig->log_error, r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_log, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_grow_never_shrinks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full_host, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
