/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "service/busy.h"

/* For these questions any directory is as good as an export. */
static char dir[] = "/tmp/fuseimg-busy-XXXXXX";
static char file[64];

static int group_setup(void **state)
{
	int fd;

	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof(file), "%s/disk", dir);
	fd = open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 1 << 20) < 0)
		return -1;
	return close(fd);
}

static int group_teardown(void **state)
{
	unlink(file);
	return rmdir(dir);
}

static void assert_found(const char *target, const char *words)
{
	char text[512], me[32];

	snprintf(me, sizeof(me), "(pid %d)", getpid());
	assert_true(busy_describe(target, text, sizeof(text)) >= 1);
	assert_non_null(strstr(text, words ?: me));
}

static void assert_free(const char *target)
{
	char text[512];

	assert_int_equal(busy_describe(target, text, sizeof(text)), 0);
	assert_string_equal(text, "");
}

static void test_nobody(void **state)
{
	assert_free(dir);
	assert_free(file);
}

static void test_open_file(void **state)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	assert_found(dir, NULL);
	assert_found(file, NULL);
	assert_free("/tmp/fuseimg-busy"); /* a prefix of the name is another name */
	close(fd);
	assert_free(dir);
}

static void test_working_directory(void **state)
{
	assert_int_equal(chdir(dir), 0);
	assert_found(dir, NULL);
	assert_int_equal(chdir("/"), 0);
}

static void test_mapping(void **state)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

	if (geteuid() != 0)
		skip();
	close(fd);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_found(file, NULL);
	munmap(p, 4096);
}

static void test_loop_device(void **state)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, loop, fd;
	char name[32];

	if (geteuid() != 0 || control < 0)
		skip();
	number = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(name, sizeof(name), "/dev/loop%d", number);
	loop = open(name, O_RDWR | O_CLOEXEC);
	fd = open(file, O_RDWR | O_CLOEXEC);
	if (loop < 0 || ioctl(loop, LOOP_SET_FD, fd) < 0)
		skip(); /* somebody else was faster */
	close(fd);
	assert_found(dir, name);
	assert_found(file, name);
	assert_int_equal(ioctl(loop, LOOP_CLR_FD), 0);
	close(loop);
}

static void test_short_buffer(void **state)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	char text[12] = "unchanged!!";

	assert_true(busy_describe(dir, text, sizeof(text)) >= 1);
	assert_true(strlen(text) < sizeof(text));
	assert_true(busy_describe(dir, NULL, 0) >= 1);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_open_file),
		cmocka_unit_test(test_working_directory),
		cmocka_unit_test(test_mapping),
		cmocka_unit_test(test_loop_device),
		cmocka_unit_test(test_short_buffer),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
