/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/files.h"
#include "session/channel.h"

static char dir[] = "/tmp/fuseimg-files-XXXXXX";
static char top[64], base[64];
static int top_fd;
static struct locate_policy policy = {.backing = LOCATE_SAME_DIRECTORY};

static void touch(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static int group_setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(top, sizeof(top), "%s/top", dir);
	snprintf(base, sizeof(base), "%s/base", dir);
	touch(top);
	touch(base);
	top_fd = open(top, O_RDONLY | O_CLOEXEC);
	return 0;
}

static int group_teardown(void **state)
{
	close(top_fd);
	unlink(top);
	unlink(base);
	return rmdir(dir);
}

static int ask(struct files *f, const char *parent, const char *name, uint32_t role, bool writable,
	       int *ret_fd)
{
	const struct files_request q = {
		.parent = parent, .name = name, .role = role, .writable = writable};
	const char *path = NULL;
	int r = files_open(f, &q, ret_fd, &path, NULL);

	if (r >= 0)
		assert_string_equal(path, base);
	return r;
}

static void test_same_request_same_file(void **state)
{
	struct files f = {.policy = &policy, .top = top, .top_fd = top_fd};
	int first = -1, second = -1, chained = -1;

	assert_int_equal(ask(&f, top, "base", CHANNEL_ROLE_BACKING, false, &first), 0);
	assert_int_equal(fcntl(first, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fcntl(first, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(ask(&f, top, "base", CHANNEL_ROLE_BACKING, false, &second), 0);
	assert_int_equal(first, second);
	/* What was given out may name files itself */
	assert_int_equal(ask(&f, base, "base", CHANNEL_ROLE_BACKING, false, &chained), 0);
	assert_int_not_equal(first, chained);
	files_done(&f);
	assert_int_equal(fcntl(first, F_GETFD), -1);
}

static void test_sealed(void **state)
{
	struct files f = {.policy = &policy, .top = top, .top_fd = top_fd};
	int first = -1, fd = -1;

	assert_int_equal(ask(&f, top, "base", CHANNEL_ROLE_BACKING, false, &first), 0);
	f.sealed = true;
	assert_int_equal(ask(&f, top, "base", CHANNEL_ROLE_BACKING, false, &fd), 0);
	assert_int_equal(fd, first);
	assert_int_equal(ask(&f, top, "./base", CHANNEL_ROLE_BACKING, false, &fd), -EACCES);
	files_done(&f);
}

static void test_what_no_honest_worker_asks(void **state)
{
	struct files f = {.policy = &policy, .top = top, .top_fd = top_fd, .writable = true};
	struct locate_policy listed = {.backing = LOCATE_LISTED};
	int fd = -1;

	assert_int_equal(ask(&f, "/etc/passwd", "shadow", CHANNEL_ROLE_BACKING, false, &fd),
			 -EACCES);
	assert_int_equal(ask(&f, "", base, CHANNEL_ROLE_BACKING, false, &fd), -EACCES);
	assert_int_equal(ask(&f, top, "base", 0, false, &fd), -EACCES);
	assert_int_equal(ask(&f, top, "base", CHANNEL_ROLE_BACKING, true, &fd), -EACCES);
	assert_int_equal(ask(&f, top, "base", CHANNEL_ROLE_DATA, true, &fd), -EACCES);
	f.policy = &listed;
	listed.dirs = base;
	assert_int_equal(ask(&f, top, "base", CHANNEL_ROLE_DATA, true, &fd), 0);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	/* The data file of a file below the image */
	assert_int_equal(ask(&f, base, "base", CHANNEL_ROLE_DATA, true, &fd), -EACCES);
	f.policy = &policy;
	f.writable = false;
	assert_int_equal(ask(&f, top, "./base", CHANNEL_ROLE_DATA, true, &fd), -EACCES);
	assert_int_equal(ask(&f, top, "/etc/passwd", CHANNEL_ROLE_BACKING, false, &fd), -EACCES);
	assert_int_equal(ask(&f, top, "missing", CHANNEL_ROLE_BACKING, false, &fd), -ENOENT);
	files_done(&f);
}

static void test_names_itself(void **state)
{
	struct files f = {.policy = &policy, .top = top, .top_fd = top_fd, .lock = true};
	int fd = -1;

	assert_int_equal(ask(&f, top, "top", CHANNEL_ROLE_BACKING, false, &fd), -ELOOP);
	assert_int_equal(ask(&f, top, "base", CHANNEL_ROLE_BACKING, false, &fd), 0);
	assert_int_equal(ask(&f, base, top, CHANNEL_ROLE_BACKING, false, &fd), -ELOOP);
	files_done(&f);
}

static void test_bounded(void **state)
{
	struct files f = {.policy = &policy, .top = top, .top_fd = top_fd};
	int fd = -1;

	for (int i = 0; i <= CHANNEL_OPENS_MAX; i++) {
		char name[CHANNEL_OPENS_MAX * 2 + 16] = "";

		for (int j = 0; j < i; j++)
			strcat(name, "./");
		strcat(name, "base");
		assert_int_equal(ask(&f, top, name, CHANNEL_ROLE_BACKING, false, &fd),
				 i < CHANNEL_OPENS_MAX ? 0 : -ELOOP);
	}
	files_done(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_request_same_file),
		cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_what_no_honest_worker_asks),
		cmocka_unit_test(test_names_itself),
		cmocka_unit_test(test_bounded),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
