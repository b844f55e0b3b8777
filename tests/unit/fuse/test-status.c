/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "rig.h"

static int set_up(void **state)
{
	struct rig *rig = rig_new();

	rig->config.directory = true;
	rig_open(rig);
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	rig_free(*state);
	return 0;
}

static void test_text(void **state)
{
	struct rig *rig = *state;
	char text[STATUS_MAX], *line;
	unsigned long long value = 0;
	size_t len;

	rig_write(rig, NODE_ID_DISK, 0, "abc", 3);
	len = status_text(&rig->share, text, sizeof(text));
	assert_int_equal(strlen(text), len);
	assert_non_null(strstr(text, "image: memory\n"));
	assert_non_null(strstr(text, "format: raw\n"));
	assert_non_null(strstr(text, "read_only: no\n"));
	line = strstr(text, "\nwrite_bytes: ");
	assert_non_null(line);
	assert_int_equal(sscanf(line, "\nwrite_bytes: %llu\n", &value), 1);
	assert_int_equal(value, 3);
}

/* So that a reader in pieces sees no torn end, whatever was counted in between. */
static void test_length_is_constant(void **state)
{
	struct rig *rig = *state;
	char text[STATUS_MAX];
	size_t before = status_text(&rig->share, text, sizeof(text));

	rig->rq.slot->counters.read_bytes = UINT64_MAX;
	rig->rq.slot->counters.others = 123456;
	assert_int_equal(status_text(&rig->share, text, sizeof(text)), before);
}

static void test_small_buffer(void **state)
{
	struct rig *rig = *state;
	char text[STATUS_MAX];

	for (size_t size = 1; size < 200; size++) {
		memset(text, 'x', sizeof(text));
		assert_true(status_text(&rig->share, text, size) < size);
		assert_int_equal(text[size], 'x');
	}
}

static void test_through_requests(void **state)
{
	struct rig *rig = *state;
	char whole[STATUS_MAX], pieces[STATUS_MAX];
	struct fuse_attr attr;
	size_t len = 0;

	assert_int_equal(rig_getattr(rig, NODE_ID_STATUS, &attr), 0);
	assert_int_equal(attr.mode, 0100400);
	assert_int_equal(rig_read(rig, NODE_ID_STATUS, 0, sizeof(whole)), 0);
	assert_int_equal(rig->body_len, attr.size);
	do {
		assert_int_equal(rig_read(rig, NODE_ID_STATUS, len, 7), 0);
		memcpy(pieces + len, rig->body, rig->body_len);
		len += rig->body_len;
	} while (rig->body_len > 0);
	assert_int_equal(len, attr.size);
	assert_int_equal(pieces[len - 1], '\n');
	assert_int_equal(rig_read(rig, NODE_ID_STATUS, UINT64_MAX, 4096), 0);
	assert_int_equal(rig->body_len, 0);
	assert_int_equal(rig_write(rig, NODE_ID_STATUS, 0, "x", 1), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_text, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_length_is_constant, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_small_buffer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_through_requests, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
