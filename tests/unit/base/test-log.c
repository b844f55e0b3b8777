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
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"

enum {
	MANY = 20000, /* messages: more than any queue takes */
};

static char dir[] = "/tmp/fuseimg-log-XXXXXX", path[64];

/* A log that takes messages, and reads them only when it is told to. */
static int syslog_socket(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/log", dir);
	strcpy(address.sun_path, path);
	assert_return_code(bind(fd, (struct sockaddr *)&address, sizeof(address)), errno);
	assert_return_code(setenv("FUSEIMG_SYSLOG_SOCKET", path, 1), errno);
	return fd;
}

static const char *receive(int fd)
{
	static char text[4096];
	ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void assert_ends(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	if (n < m || strcmp(text + n - m, end) != 0)
		fail_msg("\"%s\" does not end in \"%s\"", text, end);
}

static void test_syslog(void **state)
{
	int fd = syslog_socket();
	char end[64];

	log_init("tester", LOG_TO_SYSLOG);
	log_msg(LOG_ERR, "one %d", 1);
	snprintf(end, sizeof(end), " tester[%d]: one 1", (int)getpid());
	assert_ends(receive(fd), end);
	log_msg(LOG_INFO, "two");
	assert_memory_equal(receive(fd), "<30>", 4); /* 3, daemon, times 8, and 6 */

	/* Nobody reads: nothing waits, and what was lost is told of */
	alarm(120);
	for (int i = 0; i < MANY; i++)
		log_msg(LOG_INFO, "many");
	for (int i = 0; i < MANY && *receive(fd); i++)
		;
	log_msg(LOG_INFO, "last");
	assert_ends(receive(fd), " messages found no room in the log");
	assert_ends(receive(fd), ": last");
	log_msg(LOG_INFO, "again");
	assert_ends(receive(fd), ": again");

	/* Nobody is there, as in a container */
	close(fd);
	unlink(path);
	rmdir(dir);
	log_msg(LOG_INFO, "nobody");
	alarm(0);
}

/* A person's pager that has stopped at its first page. */
static void test_pipe_that_is_not_read(void **state)
{
	int old = dup(STDERR_FILENO), fds[2];
	char text[16] = "";

	assert_return_code(pipe(fds), errno);
	assert_return_code(dup2(fds[1], STDERR_FILENO), errno);
	log_init("tester", LOG_TO_STDERR);
	alarm(120);
	for (int i = 0; i < MANY; i++)
		log_msg(LOG_INFO, "many");
	alarm(0);
	assert_return_code(dup2(old, STDERR_FILENO), errno);
	assert_int_equal(read(fds[0], text, 13), 13);
	assert_string_equal(text, "tester: many\n");
	close(fds[0]);
	close(fds[1]);
	close(old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_syslog),
		cmocka_unit_test(test_pipe_that_is_not_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
