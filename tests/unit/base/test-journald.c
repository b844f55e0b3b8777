/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/journald.h"
#include "base/log.h"

static void test_format(void **state)
{
	static const struct journald_field fields[] = {
		{"MESSAGE", "two\nlines"}, {"LEFT_OUT", NULL}, {"EMPTY", ""}, {"PRIORITY", "3"}};
	char buf[64];
	size_t n = journald_format(fields, ARRAY_SIZE(fields), buf, sizeof(buf));

	assert_int_equal(n, strlen("MESSAGE=two lines\nEMPTY=\nPRIORITY=3\n"));
	assert_memory_equal(buf, "MESSAGE=two lines\nEMPTY=\nPRIORITY=3\n", n);
	assert_int_equal(journald_format(fields, ARRAY_SIZE(fields), buf, 20), 0);
}

static void test_no_journal(void **state)
{
	static const struct journald_field field = {"MESSAGE", "x"};

	setenv("FUSEIMG_JOURNAL_SOCKET", "/nonexistent/socket", 1);
	assert_int_equal(journald_send(&field, 1), -ENOENT);
	unsetenv("JOURNAL_STREAM");
	assert_false(journald_has_stderr());
	setenv("JOURNAL_STREAM", "1:2", 1);
	assert_false(journald_has_stderr());
	setenv("JOURNAL_STREAM", "nonsense", 1);
	assert_false(journald_has_stderr());
}

/* Standard error leads to the journal: events go to its socket, all else stays there with its
 * priority; what the journal does not take goes to standard error, too. */
static void test_events(void **state)
{
	static const struct journald_field field = {"FUSEIMG_OFFSET", "512"};
	char path[] = "/tmp/fuseimg-journal-XXXXXX", variable[64], buf[512];
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int pair[2], saved = dup(STDERR_FILENO), fd;
	struct stat st;
	ssize_t n;

	assert_non_null(mkdtemp(path));
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/socket", path);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	setenv("FUSEIMG_JOURNAL_SOCKET", a.sun_path, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(fstat(pair[0], &st), 0);
	snprintf(variable, sizeof(variable), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", variable, 1);
	dup2(pair[0], STDERR_FILENO);
	log_init("test", LOG_TO_STDERR);
	log_event(3, &field, 1, "%d errors", 2);
	log_msg(6, "plain");
	unlink(a.sun_path);
	log_event(2, &field, 1, "nobody reads");
	dup2(saved, STDERR_FILENO);
	n = read(fd, buf, sizeof(buf));
	assert_true(n > 0);
	buf[n] = '\0';
	assert_string_equal(
		buf, "MESSAGE=2 errors\nPRIORITY=3\nSYSLOG_IDENTIFIER=test\nFUSEIMG_OFFSET=512\n");
	n = read(pair[1], buf, sizeof(buf) - 1);
	assert_true(n > 0);
	buf[n] = '\0';
	assert_string_equal(buf, "<6>plain\n<2>nobody reads\n");
	/* Nobody reads at all: nothing waits */
	dup2(pair[0], STDERR_FILENO);
	for (int i = 0; i < 100000; i++)
		log_msg(6, "plain");
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fd);
	close(pair[0]);
	close(pair[1]);
	rmdir(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_no_journal),
		cmocka_unit_test(test_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
