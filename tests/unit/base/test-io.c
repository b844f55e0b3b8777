/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

static int file_of(const char *text)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_return_code(fd, errno);
	assert_int_equal(io_pwrite(fd, text, strlen(text), 0), 0);
	return fd;
}

static void test_pread(void **state)
{
	_cleanup_close_ int fd = file_of("0123456789");
	char buf[20];

	assert_int_equal(io_pread(fd, buf, 4, 3), 4);
	assert_memory_equal(buf, "3456", 4);
	assert_int_equal(io_pread(fd, buf, 20, 7), 3);
	assert_int_equal(io_pread(fd, buf, 20, 10), 0);
	assert_int_equal(io_pread(fd, buf, 0, 0), 0);
	assert_int_equal(io_pread(-1, buf, 1, 0), -EBADF);
}

static void test_pwrite(void **state)
{
	_cleanup_close_ int fd = file_of("0123456789");
	_cleanup_close_ int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	char buf[20];

	assert_int_equal(io_pwrite(fd, "ab", 2, 9), 0);
	assert_int_equal(io_pread(fd, buf, 20, 0), 11);
	assert_memory_equal(buf, "012345678ab", 11);
	assert_int_equal(io_pwrite(full, "x", 1, 0), -ENOSPC);
	assert_int_equal(io_pwrite(-1, "x", 1, 0), -EBADF);
}

static void nothing(int signal)
{
}

struct writer {
	pthread_t reader;
	int fd;
};

/* Writes in small pieces, and disturbs the reader before each. */
static void *writer_run(void *arg)
{
	struct writer *w = arg;

	for (int i = 0; i < 10; i++) {
		usleep(2000);
		pthread_kill(w->reader, SIGUSR1);
		usleep(2000);
		if (write(w->fd, "abc", 3) != 3)
			break;
	}
	close(w->fd);
	return NULL;
}

static void test_read_continues(void **state)
{
	struct sigaction action = {.sa_handler = nothing}; /* no SA_RESTART: read(2) gets EINTR */
	struct writer w = {.reader = pthread_self()};
	pthread_t thread;
	char buf[100];
	int ends[2];

	assert_return_code(sigaction(SIGUSR1, &action, NULL), errno);
	assert_return_code(pipe(ends), errno);
	w.fd = ends[1];
	assert_int_equal(pthread_create(&thread, NULL, writer_run, &w), 0);
	assert_int_equal(io_read(ends[0], buf, 20), 20);
	assert_memory_equal(buf, "abcabcabcabcabcabcab", 20);
	assert_int_equal(io_read(ends[0], buf, sizeof(buf)), 10); /* the end */
	pthread_join(thread, NULL);
	close(ends[0]);
	assert_int_equal(io_read(-1, buf, 1), -EBADF);
}

/* A pipe takes 64 KiB at a time, so this write is continued. */
static void *reader_run(void *arg)
{
	static char buf[200000];
	int *fd = arg;

	usleep(2000);
	return io_read(*fd, buf, sizeof(buf)) == sizeof(buf) && buf[199999] == 'z' ? arg : NULL;
}

static void test_write_continues(void **state)
{
	static char buf[200000];
	pthread_t thread;
	void *fine;
	int ends[2];

	memset(buf, 'z', sizeof(buf));
	assert_return_code(pipe(ends), errno);
	assert_int_equal(pthread_create(&thread, NULL, reader_run, &ends[0]), 0);
	assert_int_equal(io_write(ends[1], buf, sizeof(buf)), 0);
	pthread_join(thread, &fine);
	assert_non_null(fine);
	close(ends[0]);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(io_write(ends[1], buf, 1), -EPIPE);
	close(ends[1]);
}

static void test_read_file(void **state)
{
	_cleanup_close_ int fd = file_of("hello\n");
	_cleanup_free_ char *text = NULL;
	char path[64];
	size_t len = 77;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_int_equal(io_read_file(AT_FDCWD, path, 5, &text, &len), -EFBIG);
	assert_null(text);
	assert_int_equal(len, 77);
	assert_int_equal(io_read_file(AT_FDCWD, path, 6, &text, &len), 0);
	assert_string_equal(text, "hello\n");
	assert_int_equal(len, 6);
	freep(&text);
	text = NULL;
	assert_int_equal(io_read_file(AT_FDCWD, path, 100, &text, NULL), 0);
	assert_string_equal(text, "hello\n");
}

static void test_read_file_errors(void **state)
{
	_cleanup_close_ int dir = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char *text = NULL;

	assert_int_equal(io_read_file(dir, "fuseimg-there-is-no-such-file", 5, &text, NULL),
			 -ENOENT);
	assert_int_equal(io_read_file(dir, ".", 5, &text, NULL), -EISDIR);
	assert_null(text);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pread),	       cmocka_unit_test(test_pwrite),
		cmocka_unit_test(test_read_continues), cmocka_unit_test(test_write_continues),
		cmocka_unit_test(test_read_file),      cmocka_unit_test(test_read_file_errors),
	};

	return cmocka_run_group_tests_name("base/io", tests, NULL, NULL);
}
