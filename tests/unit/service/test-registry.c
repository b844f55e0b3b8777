/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "service/registry.h"

static char test_dir[64];

static int test_setup(void **state)
{
	snprintf(test_dir, sizeof(test_dir), "/tmp/test-registry-XXXXXX");
	if (!mkdtemp(test_dir))
		return -1;
	return setenv("FUSEIMG_RUNTIME_DIR", test_dir, 1);
}

static int test_teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", test_dir);
	return system(command) == 0 ? 0 : -1;
}

static struct registry_entry entry_of(const char *target)
{
	return (struct registry_entry){.pid = getpid(),
				       .image = (char *)"/srv/a disk\nof = two lines.qcow2",
				       .target = (char *)target,
				       .format = (char *)"qcow2",
				       .snapshot = (char *)"two words",
				       .size = UINT64_C(5) << 40,
				       .read_only = true};
}

/* Entry files in the directory; the lock file does not count. */
static unsigned files(void)
{
	char path[128];
	struct dirent *de;
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/exports", test_dir);
	d = opendir(path);
	if (!d)
		return 0;
	while ((de = readdir(d)))
		n += de->d_name[0] != '.';
	closedir(d);
	return n;
}

static void list_free(struct registry_entry *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		registry_entry_done(&list[i]);
	free(list);
}

/* systemd-tmpfiles, which cleans /tmp, asks for the lock of a directory before it looks into it. */
static bool left_alone(void)
{
	char path[128];
	bool locked;
	int fd;

	snprintf(path, sizeof(path), "%s/exports", test_dir);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_return_code(fd, errno);
	locked = flock(fd, LOCK_EX | LOCK_NB) < 0;
	close(fd);
	return locked;
}

/* By the service, too, whose umask is 077. */
static void test_directory(void **state)
{
	const struct registry_entry entry = entry_of("/mnt/a"), other = entry_of("/mnt/b");
	struct registry_own *own = NULL, *second = NULL;
	mode_t mask = umask(0077);
	char path[128];
	struct stat st;

	assert_int_equal(registry_add(&entry, &own, NULL), 0);
	assert_int_equal(registry_add(&other, &second, NULL), 0);
	umask(mask);
	snprintf(path, sizeof(path), "%s/exports", test_dir);
	assert_return_code(stat(path, &st), errno);
	assert_int_equal(st.st_mode & 0777, geteuid() == 0 ? 0755 : 0700);
	assert_true(left_alone());
	registry_remove(own, NULL);
	assert_true(left_alone());
	registry_remove(second, NULL);
	assert_false(left_alone());
}

static void test_list_is_empty_without_directory(void **state)
{
	struct registry_entry *list = NULL;
	size_t n = 9;

	assert_int_equal(registry_list(&list, &n, NULL), 0);
	assert_int_equal(n, 0);
	free(list);
}

static void test_entry_is_listed_until_removed(void **state)
{
	const struct registry_entry e = entry_of("/mnt/b");
	struct registry_entry *list = NULL;
	struct registry_own *own = NULL;
	size_t n = 0;

	assert_int_equal(registry_add(&e, &own, NULL), 0);
	assert_int_equal(registry_list(&list, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(list[0].pid, getpid());
	assert_string_equal(list[0].image, e.image);
	assert_string_equal(list[0].target, "/mnt/b");
	assert_string_equal(list[0].format, "qcow2");
	assert_string_equal(list[0].snapshot, "two words");
	assert_null(list[0].name);
	assert_true(list[0].size == e.size);
	assert_true(list[0].read_only);
	list_free(list, n);

	registry_remove(own, NULL);
	assert_int_equal(files(), 0);
	assert_int_equal(registry_list(&list, &n, NULL), 0);
	assert_int_equal(n, 0);
	free(list);
}

/* The descriptor goes to another supervisor: so do the lock and the entry. */
static void test_entry_is_handed_over(void **state)
{
	struct registry_entry e = entry_of("/mnt/b"), *list = NULL;
	struct registry_own *own = NULL, *heir = NULL;
	size_t n = 0;

	assert_int_equal(registry_fd(NULL), -1);
	assert_null(registry_path(NULL));
	registry_refresh(NULL, &e);
	assert_int_equal(registry_add(&e, &own, NULL), 0);
	assert_int_equal(registry_adopt(dup(registry_fd(own)), registry_path(own), &heir), 0);
	e.pid = 1;
	e.size = 1;
	e.read_only = false;
	registry_refresh(heir, &e);
	assert_int_equal(registry_list(&list, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(list[0].pid, 1);
	assert_true(list[0].size == 1 && !list[0].read_only);
	assert_string_equal(list[0].target, "/mnt/b");
	list_free(list, n);
	registry_remove(heir, NULL);
	assert_int_equal(files(), 0);
	registry_remove(own, NULL);
}

static void test_list_is_sorted_by_target(void **state)
{
	static const char *const targets[] = {"/mnt/c", "/mnt/a", "/mnt/b"};
	struct registry_entry *list = NULL;
	struct registry_own *own[3];
	size_t n = 0;

	for (unsigned i = 0; i < 3; i++) {
		const struct registry_entry e = entry_of(targets[i]);

		assert_int_equal(registry_add(&e, &own[i], NULL), 0);
	}
	assert_int_equal(registry_list(&list, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_string_equal(list[0].target, "/mnt/a");
	assert_string_equal(list[1].target, "/mnt/b");
	assert_string_equal(list[2].target, "/mnt/c");
	list_free(list, n);
	for (unsigned i = 0; i < 3; i++)
		registry_remove(own[i], NULL);
}

static void test_a_target_is_claimed_once(void **state)
{
	const struct registry_entry e = entry_of("/mnt/b");
	struct registry_own *own = NULL, *second = NULL;
	struct diag diag = {};

	assert_int_equal(registry_add(&e, &own, NULL), 0);
	assert_int_equal(registry_add(&e, &second, &diag), -EBUSY);
	assert_null(second);
	assert_non_null(strstr(diag.text, "/mnt/b"));
	registry_remove(own, NULL);
	assert_int_equal(registry_add(&e, &second, NULL), 0);
	registry_remove(second, NULL);
}

/* A supervisor in a process of its own: ready when the pipe says so, ends as told. */
struct child {
	pid_t pid;
	int control;
};

static void child_run(int control, int ready, const struct diag *outcome)
{
	const struct registry_entry e = entry_of("/mnt/child");
	struct registry_own *own = NULL;
	char c = 0;

	if (registry_add(&e, &own, NULL) < 0 || write(ready, "r", 1) != 1)
		_exit(1);
	if (read(control, &c, 1) == 1)
		registry_remove(own, outcome);
	_exit(0);
}

static struct child child_start(const struct diag *outcome)
{
	struct child c = {};
	int control[2], ready[2];
	char byte;

	assert_int_equal(pipe2(control, O_CLOEXEC), 0);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	c.pid = fork();
	assert_true(c.pid >= 0);
	if (c.pid == 0) {
		close(control[1]);
		child_run(control[0], ready[1], outcome);
	}
	close(control[0]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	c.control = control[1];
	return c;
}

static void child_end(struct child *c, bool orderly)
{
	if (orderly)
		assert_int_equal(write(c->control, "x", 1), 1);
	close(c->control);
	assert_int_equal(waitpid(c->pid, NULL, 0), c->pid);
}

static void test_wait_sees_an_orderly_end(void **state)
{
	struct registry_watch *w = NULL;
	struct diag diag = {};
	struct child c = child_start(NULL);

	assert_int_equal(registry_watch("/mnt/child", &w, NULL), 0);
	assert_non_null(w);
	assert_int_equal(registry_wait(w, 0, &diag), -ETIME);
	assert_int_equal(registry_wait(w, 20, &diag), -ETIME);
	child_end(&c, true);
	assert_int_equal(registry_wait(w, -1, &diag), 0);
	registry_watch_free(w);
	assert_int_equal(files(), 0);
}

static void test_wait_hands_on_the_failure(void **state)
{
	const struct diag outcome = {.error = -ENOSPC, .text = "disk full"};
	struct registry_watch *w = NULL;
	struct diag diag = {};
	struct child c = child_start(&outcome);

	assert_int_equal(registry_watch("/mnt/child", &w, NULL), 0);
	child_end(&c, true);
	assert_int_equal(registry_wait(w, 60000, &diag), -ENOSPC);
	assert_string_equal(diag.text, "disk full");
	registry_watch_free(w);
}

static void test_wait_wakes_when_the_process_ends(void **state)
{
	struct registry_watch *w = NULL;
	struct child c = child_start(NULL);

	assert_int_equal(registry_watch("/mnt/child", &w, NULL), 0);
	assert_int_equal(write(c.control, "x", 1), 1);
	assert_int_equal(registry_wait(w, 10000, NULL), 0);
	close(c.control);
	assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
	registry_watch_free(w);
}

static void test_a_killed_supervisor_is_told_apart(void **state)
{
	struct registry_entry *list = NULL;
	struct registry_watch *w = NULL;
	struct diag diag = {};
	struct child c = child_start(NULL);
	size_t n = 9;

	assert_int_equal(registry_watch("/mnt/child", &w, NULL), 0);
	assert_int_equal(kill(c.pid, SIGKILL), 0);
	child_end(&c, false);
	assert_int_equal(registry_wait(w, 60000, &diag), -EOWNERDEAD);
	assert_non_null(strstr(diag.text, "/mnt/child"));
	registry_watch_free(w);

	assert_int_equal(files(), 1);
	assert_int_equal(registry_list(&list, &n, NULL), 0);
	assert_int_equal(n, 0);
	free(list);
	assert_int_equal(files(), 0);
}

static void test_watch_of_an_unknown_target_is_null(void **state)
{
	const struct registry_entry e = entry_of("/mnt/b");
	struct registry_own *own = NULL;
	struct registry_watch *w = (void *)&own;

	assert_int_equal(registry_add(&e, &own, NULL), 0);
	assert_int_equal(registry_watch("/mnt", &w, NULL), 0);
	assert_null(w);
	registry_remove(own, NULL);
}

/* Live (locked) files whose content is no entry. */
static void test_garbage_is_passed_over(void **state)
{
	static const char negative_size[] = "image=x\0target=y\0format=raw\0size=-1";
	static const struct {
		const char *text;
		size_t len;
	} garbage[] = {
		{"", 0},
		{"no pair", 7},
		{"pid=1", 6},
		{negative_size, sizeof(negative_size)},
	};
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	const struct registry_entry e = entry_of("/mnt/b");
	struct registry_entry *list = NULL;
	struct registry_own *own = NULL;
	int fds[4];
	size_t n = 0;

	assert_int_equal(registry_add(&e, &own, NULL), 0);
	for (int i = 0; i < 4; i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/exports/garbage-%d", test_dir, i);
		fds[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		assert_true(fds[i] >= 0);
		assert_true(write(fds[i], garbage[i].text, garbage[i].len) >= 0);
		assert_int_equal(fcntl(fds[i], F_OFD_SETLK, &lock), 0);
	}
	assert_int_equal(registry_list(&list, &n, NULL), 0);
	assert_int_equal(n, 1);
	list_free(list, n);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	registry_remove(own, NULL);
}

static void test_a_directory_open_to_others_is_refused(void **state)
{
	const struct registry_entry e = entry_of("/mnt/b");
	struct registry_own *own = NULL;
	struct diag diag = {};

	assert_int_equal(chmod(test_dir, 0777), 0);
	assert_int_equal(registry_add(&e, &own, &diag), -EPERM);
	assert_non_null(strstr(diag.text, test_dir));
	assert_null(own);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, test_setup, test_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_list_is_empty_without_directory),
		TEST(test_directory),
		TEST(test_entry_is_listed_until_removed),
		TEST(test_entry_is_handed_over),
		TEST(test_list_is_sorted_by_target),
		TEST(test_a_target_is_claimed_once),
		TEST(test_wait_sees_an_orderly_end),
		TEST(test_wait_hands_on_the_failure),
		TEST(test_wait_wakes_when_the_process_ends),
		TEST(test_a_killed_supervisor_is_told_apart),
		TEST(test_watch_of_an_unknown_target_is_null),
		TEST(test_garbage_is_passed_over),
		TEST(test_a_directory_open_to_others_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
