/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Real mounts; needs root and /dev/fuse. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "session/abi.h"
#include "session/session.h"

enum { EXIT_SKIPPED = 77 };

struct place {
	char base[64], dir[128], file[128];
};

static int set_up(void **state)
{
	static struct place p;
	int fd;

	strcpy(p.base, "/tmp/fuseimg-test-XXXXXX");
	if (!mkdtemp(p.base))
		return -1;
	snprintf(p.dir, sizeof(p.dir), "%s/a b", p.base);
	snprintf(p.file, sizeof(p.file), "%s/file", p.base);
	fd = open(p.file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || mkdir(p.dir, 0700) < 0)
		return -1;
	close(fd);
	*state = &p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;

	/* A failed test may have left these */
	(void)session_unmount(p->dir);
	(void)session_unmount(p->file);
	return rmdir(p->dir) | unlink(p->file) | rmdir(p->base);
}

/* The last line of mountinfo that contains text, or "". */
static void find_mount(const char *text, char *ret, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096];

	ret[0] = '\0';
	while (fgets(line, sizeof(line), f))
		if (strstr(line, text))
			snprintf(ret, size, "%s", line);
	fclose(f);
}

static void test_directory(void **state)
{
	struct place *p = *state;
	const struct session_mount_options o = {
		.source = "/srv/a,b\\c.qcow2", .target = p->dir, .allow_other = true};
	struct session s = {};
	char line[4096], path[128], text[32] = {};
	unsigned major, minor;
	int fd;

	assert_int_equal(session_open(&o, 3, &s, NULL), 0);
	assert_int_equal(s.n, 3);
	assert_true(s.thread_fds[2] >= 0);
	assert_int_equal(s.thread_fds[3], -1);
	assert_true(fcntl(s.fd, F_GETFD) & FD_CLOEXEC);

	find_mount(p->base, line, sizeof(line));
	assert_non_null(strstr(line, "rw,nosuid,nodev,noatime"));
	assert_non_null(strstr(line, " - fuse.fuseimg /srv/a,b\\134c.qcow2 rw"));
	assert_non_null(strstr(line, "default_permissions,allow_other"));
	assert_null(strstr(line, "max_read"));

	assert_int_equal(sscanf(line, "%*d %*d %u:%u", &major, &minor), 2);
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		assert_true(read(fd, text, sizeof(text) - 1) > 0);
		assert_string_equal(text, "1024\n");
		close(fd);
	}
	assert_int_equal(session_unmount(p->dir), 0);
	find_mount(p->base, line, sizeof(line));
	assert_string_equal(line, "");
	session_close(&s);
	assert_int_equal(session_unmount(p->dir), -EINVAL);
}

static void test_read_only_file(void **state)
{
	struct place *p = *state;
	const struct session_mount_options o = {
		.source = "img", .target = p->file, .read_only = true};
	struct session s = {};
	char line[4096];

	assert_int_equal(session_open(&o, 1, &s, NULL), 0);
	find_mount(p->file, line, sizeof(line));
	assert_non_null(strstr(line, " ro,nosuid,nodev,noatime"));
	assert_null(strstr(line, "allow_other"));
	session_close(&s);
	assert_int_equal(session_unmount(p->file), 0);
}

/* A client whose request nobody executes hears what session_reply_error() says. */
static void test_reply_error(void **state)
{
	struct place *p = *state;
	const struct session_mount_options o = {.source = "img", .target = p->dir};
	struct session s = {};
	struct fuse_in_header *in;
	static char buf[SLOT_REQUEST_MAX];
	int status;
	pid_t pid;

	assert_int_equal(session_open(&o, 2, &s, NULL), 0);
	pid = fork();
	if (pid == 0) {
		struct stat st;

		_exit(stat(p->dir, &st) < 0 ? errno : 0);
	}
	assert_true(read(s.thread_fds[1], buf, sizeof(buf)) > 0);
	in = (void *)buf;
	/* a busy mount is not taken away */
	assert_int_equal(session_unmount(p->dir), -EBUSY);
	/* only the fd that the request came from may answer */
	assert_int_equal(session_reply_error(s.thread_fds[0], in->unique, EIO), -ENOENT);
	assert_int_equal(session_reply_error(s.thread_fds[1], in->unique, EHWPOISON), 0);
	assert_int_equal(session_reply_error(s.thread_fds[1], in->unique, EIO), -ENOENT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EHWPOISON);
	assert_int_equal(session_unmount(p->dir), 0);
	session_close(&s);
}

static void test_bad_targets(void **state)
{
	struct place *p = *state;
	struct session_mount_options o = {.source = "img", .target = "/nonexistent/dir"};
	struct session s = {.n = 42};
	struct diag diag = {};

	assert_int_equal(session_open(&o, 1, &s, &diag), -ENOENT);
	assert_non_null(strstr(diag.text, "/nonexistent/dir"));
	o.target = p->dir;
	assert_int_equal(session_open(&o, 0, &s, &diag), -EINVAL);
	assert_int_equal(session_open(&o, SLOTS_MAX + 1, &s, &diag), -EINVAL);
	assert_int_equal(s.n, 42);
}

/* In a child without the right to mount here: 0 when all is as it should be. */
static int refused_to_plain_user(const struct session_mount_options *o, int err)
{
	struct session s = {};
	struct diag diag = {};
	int r;

	if (dup2(err, STDERR_FILENO) < 0 || setresgid(65534, 65534, 65534) < 0 ||
	    setresuid(65534, 65534, 65534) < 0)
		return 1;
	r = session_open(o, 1, &s, &diag);
	dprintf(STDERR_FILENO, "x");
	if (r >= 0 || diag.error != r)
		return 2;
	if (!strstr(diag.text, o->target) || strchr(diag.text, '\n') ||
	    strstr(diag.text, "fusermount"))
		return 3;
	return 0;
}

/* What libfuse says goes into the diag, not to our standard error; which stays what it was. */
static void test_stderr_is_caught(void **state)
{
	struct place *p = *state;
	const struct session_mount_options o = {.source = "img", .target = p->dir};
	_cleanup_fclose_ FILE *err = tmpfile();
	struct stat st;
	int status;
	pid_t pid;

	assert_int_equal(chmod(p->base, 0755), 0);
	assert_int_equal(chmod(p->dir, 0755), 0);
	pid = fork();
	if (pid == 0)
		_exit(refused_to_plain_user(&o, fileno(err)));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(fstat(fileno(err), &st), 0);
	assert_int_equal(st.st_size, 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_directory),	TEST(test_read_only_file),   TEST(test_reply_error),
		TEST(test_bad_targets), TEST(test_stderr_is_caught),
	};
#undef TEST

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0) {
		fprintf(stderr, "needs root and /dev/fuse\n");
		return EXIT_SKIPPED;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
