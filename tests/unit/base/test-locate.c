/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/locate.h"

/*
 * root/			*state
 *   a/disk.qcow2	the top image
 *   a/base.img  a/sub/deep.img  a/link.img -> base.img  a/out.img -> ../x/base.img
 *   a/fifo  a/socket
 *   ab/base.img	a neighbour whose name begins alike
 *   x/base.img  here -> x
 */
struct tree {
	char root[64];
	struct diag diag;
	int fd;
	char *real;
};

static const struct locate_how reading = {}, writing = {.writable = true};

static const char *at(struct tree *t, const char *name)
{
	static char paths[4][128]; /* the last few stay good */
	static unsigned next;
	char *path = paths[next++ % ARRAY_SIZE(paths)];

	snprintf(path, sizeof(paths[0]), "%s/%s", t->root, name);
	return path;
}

static void make_file(struct tree *t, const char *name)
{
	int fd = open(at(t, name), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);

	assert_return_code(fd, errno);
	assert_return_code(write(fd, name, strlen(name)), errno);
	close(fd);
}

static void make_socket(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_return_code(bind(fd, (struct sockaddr *)&address, sizeof(address)), errno);
	close(fd);
}

static int setup(void **state)
{
	static const char *const dirs[] = {"a", "a/sub", "ab", "x"};
	static const char *const files[] = {"a/disk.qcow2", "a/base.img", "a/sub/deep.img",
					    "ab/base.img",  "x/base.img", "a/file:x.img"};
	struct tree *t = calloc(1, sizeof(*t));

	*state = t;
	snprintf(t->root, sizeof(t->root), "/tmp/fuseimg-locate-XXXXXX");
	assert_non_null(mkdtemp(t->root));
	assert_return_code(chmod(t->root, 0755), errno);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		assert_return_code(mkdir(at(t, dirs[i]), 0755), errno);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		make_file(t, files[i]);
	assert_return_code(symlink("base.img", at(t, "a/link.img")), errno);
	assert_return_code(symlink("../x/base.img", at(t, "a/out.img")), errno);
	assert_return_code(symlink("x", at(t, "here")), errno);
	assert_return_code(mkfifo(at(t, "a/fifo"), 0644), errno);
	make_socket(at(t, "a/socket"));
	t->fd = -1;
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"a/disk.qcow2",
					    "a/base.img",
					    "a/sub/deep.img",
					    "ab/base.img",
					    "x/base.img",
					    "a/file:x.img",
					    "a/link.img",
					    "a/out.img",
					    "here",
					    "a/fifo",
					    "a/socket",
					    "a/sub",
					    "a",
					    "ab",
					    "x",
					    ""};
	struct tree *t = *state;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		r |= remove(at(t, names[i]));
	free(t);
	return r;
}

static void done(struct tree *t)
{
	closep(&t->fd);
	t->fd = -1;
	free(t->real);
	t->real = NULL;
	t->diag = (struct diag){0};
}

/* Opens name as the image a/disk.qcow2 says it. */
static int named(struct tree *t, const char *backing, const char *name)
{
	_cleanup_(locate_policy_done) struct locate_policy policy = {0};
	const char *top = at(t, "a/disk.qcow2");

	done(t);
	assert_int_equal(locate_policy_parse(backing, &policy, NULL), 0);
	return locate_open_named(&policy, top, top, name, &reading, &t->fd, &t->real, &t->diag);
}

static void assert_opened(struct tree *t, int r, const char *name)
{
	char text[100] = "";

	if (r < 0)
		fail_msg("%s", t->diag.text);
	assert_int_equal(r, 0);
	assert_string_equal(t->real, at(t, name));
	assert_true(fcntl(t->fd, F_GETFD) & FD_CLOEXEC);
	assert_true(pread(t->fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, name);
	done(t);
}

static void assert_refused(struct tree *t, int r, int error, const char *why)
{
	assert_int_equal(r, error);
	assert_int_equal(t->diag.error, error);
	if (!strstr(t->diag.text, why))
		fail_msg("\"%s\" does not say \"%s\"", t->diag.text, why);
	assert_int_equal(t->fd, -1);
	assert_null(t->real);
}

static int image(struct tree *t, const char *path, bool writable)
{
	done(t);
	return locate_open_image(path, &(struct locate_how){.writable = writable}, &t->fd, &t->real,
				 &t->diag);
}

static void test_policy_words(void **state)
{
	struct locate_policy p = {0};
	struct diag diag = {0};

	assert_int_equal(locate_policy_parse("none", &p, NULL), 0);
	assert_int_equal(p.backing, LOCATE_NONE);
	assert_int_equal(locate_policy_parse("directory", &p, NULL), 0);
	assert_int_equal(p.backing, LOCATE_SAME_DIRECTORY);
	assert_int_equal(locate_policy_parse("/a:/b c", &p, NULL), 0);
	assert_int_equal(p.backing, LOCATE_LISTED);
	assert_string_equal(p.dirs, "/a:/b c");
	locate_policy_done(&p);
	assert_null(p.dirs);

	assert_int_equal(locate_policy_parse("srv", &p, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "not \"srv\""));
	assert_int_equal(locate_policy_parse("", &p, &diag), -EINVAL);
	assert_int_equal(locate_policy_parse("/a:b", &p, &diag), -EINVAL);
	assert_int_equal(locate_policy_parse("/a:", &p, &diag), -EINVAL);
	assert_int_equal(locate_policy_parse(":/a", &p, &diag), -EINVAL);
	assert_null(p.dirs);
}

static void test_image(void **state)
{
	struct tree *t = *state;

	assert_opened(t, image(t, at(t, "a/disk.qcow2"), false), "a/disk.qcow2");
	assert_opened(t, image(t, at(t, "a/./sub/../link.img"), true), "a/base.img");
	assert_int_equal(image(t, at(t, "a/base.img"), true), 0);
	assert_int_equal(fcntl(t->fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(image(t, at(t, "a/base.img"), false), 0);
	assert_int_equal(fcntl(t->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	done(t);
}

static void test_image_relative(void **state)
{
	struct tree *t = *state;
	_cleanup_free_ char *cwd = getcwd(NULL, 0);

	assert_return_code(chdir(at(t, "a/sub")), errno);
	assert_opened(t, image(t, "../base.img", false), "a/base.img");
	assert_opened(t, image(t, "deep.img", false), "a/sub/deep.img");
	assert_return_code(chdir(cwd), errno);
}

/* A person may name any file, with a colon too. */
static void test_image_with_colon(void **state)
{
	struct tree *t = *state;

	assert_opened(t, image(t, at(t, "a/file:x.img"), false), "a/file:x.img");
}

static void test_image_direct(void **state)
{
	struct tree *t = *state;
	char *real = NULL;
	int fd = -1;

	assert_int_equal(locate_open_image(at(t, "a/base.img"),
					   &(struct locate_how){.direct = true}, &fd, &real,
					   &t->diag),
			 0);
	assert_true(fcntl(fd, F_GETFL) & O_DIRECT);
	close(fd);
	free(real);
}

/* Nothing here may hang. */
static void test_image_of_wrong_kind(void **state)
{
	struct tree *t = *state;

	alarm(60);
	assert_refused(t, image(t, at(t, "a/fifo"), true), -EMEDIUMTYPE, "a/fifo is a FIFO;");
	assert_refused(t, image(t, at(t, "a/socket"), true), -EMEDIUMTYPE, "is a socket;");
	assert_refused(t, image(t, t->root, true), -EMEDIUMTYPE, "is a directory;");
	assert_refused(t, image(t, "/dev/zero", true), -EMEDIUMTYPE,
		       "/dev/zero is a character device; an image is a regular file or a block "
		       "device");
	alarm(0);
}

static void test_image_missing(void **state)
{
	struct tree *t = *state;

	assert_refused(t, image(t, "/no/such.img", false), -ENOENT, "/no/such.img does not exist");
	assert_refused(t, image(t, "", false), -ENOENT, "does not exist");
	assert_refused(t, image(t, at(t, "a/disk.qcow2/x"), false), -ENOTDIR, "Not a directory");
	assert_refused(t, image(t, "/no\x1b[2J", false), -ENOENT, "/no\\x1b[2J does not exist");
}

static void test_image_deleted(void **state)
{
	struct tree *t = *state;
	char path[64];
	int fd;

	make_file(t, "gone.img");
	fd = open(at(t, "gone.img"), O_RDONLY | O_CLOEXEC);
	assert_return_code(unlink(at(t, "gone.img")), errno);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_refused(t, image(t, path, false), -ENOENT, "has been deleted or moved");
	/* Another file of the name that /proc then shows is not that file */
	make_file(t, "gone.img (deleted)");
	assert_refused(t, image(t, path, false), -ENOENT, "has been deleted or moved");
	assert_opened(t, image(t, at(t, "gone.img (deleted)"), false), "gone.img (deleted)");
	assert_return_code(unlink(at(t, "gone.img (deleted)")), errno);
	close(fd);
}

static void test_same_directory(void **state)
{
	struct tree *t = *state;

	assert_opened(t, named(t, "directory", "base.img"), "a/base.img");
	assert_opened(t, named(t, "directory", "./base.img"), "a/base.img");
	assert_opened(t, named(t, "directory", "sub/deep.img"), "a/sub/deep.img");
	assert_opened(t, named(t, "directory", "link.img"), "a/base.img");
	assert_opened(t, named(t, "directory", "../a/base.img"), "a/base.img");
	assert_opened(t, named(t, "directory", at(t, "a/base.img")), "a/base.img");
}

static void test_outside_the_directory(void **state)
{
	static const char *const names[] = {"../x/base.img", "out.img", "../ab/base.img",
					    "/etc/passwd", "sub/../../x/base.img"};
	struct tree *t = *state;
	char sentence[512];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_refused(t, named(t, "directory", names[i]), -EACCES,
			       "outside the directory of the image; allow it with -o backing=/");
	snprintf(sentence, sizeof(sentence),
		 "the file \"out.img\" that %s/a/disk.qcow2 names is %s/x/base.img, outside the "
		 "directory of the image; allow it with -o backing=%s/x",
		 t->root, t->root, t->root);
	named(t, "directory", "out.img");
	assert_string_equal(t->diag.text, sentence);
}

/* The second file of a chain may stand below, and name by its own place what is beside the top. */
static void test_parent_below_top(void **state)
{
	struct tree *t = *state;
	struct locate_policy policy = {.backing = LOCATE_SAME_DIRECTORY};

	done(t);
	assert_opened(t,
		      locate_open_named(&policy, at(t, "a/disk.qcow2"), at(t, "a/sub/deep.img"),
					"../base.img", &reading, &t->fd, &t->real, &t->diag),
		      "a/base.img");
	assert_refused(t,
		       locate_open_named(&policy, at(t, "a/sub/deep.img"), at(t, "a/disk.qcow2"),
					 "base.img", &reading, &t->fd, &t->real, &t->diag),
		       -EACCES, "outside the directory");
	assert_refused(t,
		       locate_open_named(&policy, at(t, "a/disk.qcow2"), "deep.img", "base.img",
					 &reading, &t->fd, &t->real, &t->diag),
		       -EINVAL, "cannot resolve");
}

static void test_none(void **state)
{
	struct tree *t = *state;

	assert_refused(t, named(t, "none", "base.img"), -EACCES, "backing=none");
}

static void test_listed(void **state)
{
	struct tree *t = *state;
	char dirs[200], extended[400];

	snprintf(dirs, sizeof(dirs), "/no/such:%s/x", t->root);
	assert_opened(t, named(t, dirs, "../x/base.img"), "x/base.img");
	assert_opened(t, named(t, dirs, "out.img"), "x/base.img");
	snprintf(extended, sizeof(extended),
		 "outside the listed directories; allow it with "
		 "-o backing=%s:%s/a",
		 dirs, t->root);
	assert_refused(t, named(t, dirs, "base.img"), -EACCES, extended);
	assert_opened(t, named(t, "/", "../x/base.img"), "x/base.img");
	/* A listed directory may be a link, and may end in a slash */
	snprintf(dirs, sizeof(dirs), "%s/here/", t->root);
	assert_opened(t, named(t, dirs, "../x/base.img"), "x/base.img");
	snprintf(dirs, sizeof(dirs), "%s/a", t->root);
	assert_refused(t, named(t, dirs, "../ab/base.img"), -EACCES, "outside");
}

/* As its data file, which is to be written to. */
static int written(struct tree *t, const char *backing, const char *name)
{
	_cleanup_(locate_policy_done) struct locate_policy policy = {0};
	const char *top = at(t, "a/disk.qcow2");

	done(t);
	assert_int_equal(locate_policy_parse(backing, &policy, NULL), 0);
	return locate_open_named(&policy, top, top, name, &writing, &t->fd, &t->real, &t->diag);
}

static void assert_written(struct tree *t, const char *backing, const char *name, const char *real)
{
	assert_int_equal(written(t, backing, name), 0);
	assert_int_equal(fcntl(t->fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_string_equal(t->real, at(t, real));
	done(t);
}

static void test_writing_takes_a_name(void **state)
{
	struct tree *t = *state;
	char list[400], sentence[600];

	snprintf(
		sentence, sizeof(sentence),
		"the file \"link.img\" that %s/a/disk.qcow2 names: %s/a/base.img is only written "
		"to "
		"where it, or its directory, is listed; allow it with -o backing=%s/a/base.img, or "
		"use -o ro",
		t->root, t->root, t->root);
	assert_refused(t, written(t, "directory", "link.img"), -EACCES, "is listed");
	assert_string_equal(t->diag.text, sentence);
	assert_refused(t, written(t, "none", "base.img"), -EACCES, "backing=none");
	/* Above it, beside it, and one whose name only begins like it */
	assert_refused(t, written(t, t->root, "base.img"), -EACCES, "is listed");
	assert_refused(t, written(t, "/", "base.img"), -EACCES, "is listed");
	snprintf(list, sizeof(list), "%s/a/disk.qcow2:%s/x:%s/a/base", t->root, t->root, t->root);
	assert_refused(t, written(t, list, "base.img"), -EACCES, list);

	assert_written(t, at(t, "a"), "base.img", "a/base.img");
	assert_written(t, at(t, "a/base.img"), "base.img", "a/base.img");
	assert_written(t, at(t, "a/link.img"), "base.img", "a/base.img");
	snprintf(list, sizeof(list), "/no/such:%s/here/", t->root);
	assert_written(t, list, "../x/base.img", "x/base.img");
	/* A file that is listed is listed for reading, too, and nothing below it is */
	assert_opened(t, named(t, at(t, "a/base.img"), "base.img"), "a/base.img");
	assert_refused(t, named(t, at(t, "a/base.img"), "sub/deep.img"), -EACCES, "outside");
}

static void test_protocols(void **state)
{
	static const char *const names[] = {"nbd://host/x",
					    "json:{\"driver\":\"raw\"}",
					    "http://host/disk.img",
					    "fat:rw:/etc",
					    "x:y",
					    ":",
					    "files:x",
					    "fil:x"};
	struct tree *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_refused(t, named(t, "/", names[i]), -EOPNOTSUPP, "is not a plain file name");
	assert_opened(t, named(t, "directory", "file:base.img"), "a/base.img");
	assert_opened(t, named(t, "directory", "FILE:base.img"), "a/base.img");
	assert_opened(t, named(t, "directory", "./file:x.img"), "a/file:x.img");
	assert_opened(t, named(t, "directory", "file:file:x.img"), "a/file:x.img");
	assert_refused(t, named(t, "directory", "file:"), -EINVAL, "has no name");
	assert_refused(t, named(t, "directory", ""), -EINVAL, "has no name");
}

static void test_named_of_wrong_kind(void **state)
{
	struct tree *t = *state;

	alarm(60);
	assert_refused(t, named(t, "directory", "fifo"), -EMEDIUMTYPE, "names is a FIFO");
	assert_refused(t, named(t, "directory", "socket"), -EMEDIUMTYPE, "names is a socket");
	assert_refused(t, named(t, "directory", "sub"), -EMEDIUMTYPE, "names is a directory");
	assert_refused(t, named(t, "directory", "/dev/zero"), -EMEDIUMTYPE, "character device");
	assert_refused(t, named(t, "directory", "gone.img"), -ENOENT, "\"gone.img\" that /tmp/");
	alarm(0);
}

/* A name from an image may hold anything. */
static void test_hostile_names(void **state)
{
	struct tree *t = *state;
	_cleanup_free_ char *long_name = malloc(100001);

	memset(long_name, 'x', 100000);
	long_name[100000] = '\0';
	assert_refused(t, named(t, "directory", long_name), -ENAMETOOLONG, "File name too long");
	assert_refused(t, named(t, "directory", "\x1b]0;pwned\a"), -ENOENT, "\\x1b]0;pwned\\x07");
	assert_refused(t, named(t, "directory", "%s%n%s"), -ENOENT, "\"%s%n%s\"");
}

/* Not even beside the image: who may write there might have got hold of a node. */
static void test_device_node_beside_the_image(void **state)
{
	struct tree *t = *state;
	struct stat st;

	if (stat("/dev/loop0", &st) < 0 || mknod(at(t, "a/node"), S_IFBLK | 0600, st.st_rdev) < 0)
		skip();
	assert_refused(t, named(t, "directory", "node"), -EACCES, "a block device");
	assert_return_code(unlink(at(t, "a/node")), errno);
}

/* Block devices only where listed: a hostile image on /dev/vdb must not read /dev/vda. */
static void test_block_devices(void **state)
{
	struct tree *t = *state;
	struct locate_policy same = {.backing = LOCATE_SAME_DIRECTORY};

	if (access("/dev/loop0", R_OK) < 0)
		skip();
	assert_int_equal(image(t, "/dev/loop0", false), 0);
	done(t);
	assert_int_equal(named(t, "/dev", "/dev/loop0"), 0);
	assert_string_equal(t->real, "/dev/loop0");
	done(t);
	assert_refused(t, written(t, "/dev", "/dev/loop0"), -EACCES,
		       "only written to where this block device is listed; allow it with -o "
		       "backing=/dev:/dev/loop0");
	assert_refused(t,
		       locate_open_named(&same, "/dev/loop1", "/dev/loop1", "loop0", &reading,
					 &t->fd, &t->real, &t->diag),
		       -EACCES,
		       "a block device, which is opened only where listed; allow it with -o "
		       "backing=/dev");
}

static void test_image_in_the_root(void **state)
{
	struct tree *t = *state;
	struct locate_policy same = {.backing = LOCATE_SAME_DIRECTORY};

	assert_refused(t,
		       locate_open_named(&same, "/disk.qcow2", "/disk.qcow2", "etc/passwd",
					 &reading, &t->fd, &t->real, &t->diag),
		       -EACCES, "outside the directory of the image");
}

/* As user nobody, in a process that root has started. */
static void test_no_permission(void **state)
{
	struct tree *t = *state;

	if (geteuid() != 0)
		skip();
	assert_return_code(chmod(at(t, "x/base.img"), 0), errno);
	assert_return_code(seteuid(65534), errno);
	prctl(PR_SET_DUMPABLE, 1); /* /proc/self is ours again */
	assert_refused(t, image(t, at(t, "a/base.img"), true), -EACCES,
		       "may be read but not written (Permission denied); "
		       "change its permissions, or use -o ro");
	assert_refused(t, image(t, at(t, "x/base.img"), true), -EACCES, "even for reading");
	assert_refused(t, image(t, at(t, "x/base.img"), false), -EACCES,
		       "for reading: Permission denied");
	assert_return_code(seteuid(0), errno);
	assert_return_code(chmod(at(t, "x/base.img"), 0644), errno);
}

/* Last: the process then has a mount namespace of its own. */
static void test_file_system_that_cannot(void **state)
{
	struct tree *t = *state;
	char *real = NULL;
	int fd = -1;

	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0)
		skip();
	assert_return_code(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), errno);
	assert_return_code(mount("ramfs", at(t, "x"), "ramfs", 0, NULL), errno);
	make_file(t, "x/ram.img");
	assert_int_equal(locate_open_image(at(t, "x/ram.img"),
					   &(struct locate_how){.writable = true, .direct = true},
					   &fd, &real, &t->diag),
			 -EINVAL);
	assert_non_null(strstr(t->diag.text, "cannot do direct I/O; use -o direct_io=no"));
	assert_return_code(mount("none", at(t, "x"), NULL, MS_REMOUNT | MS_RDONLY, NULL), errno);
	assert_refused(t, image(t, at(t, "x/ram.img"), true), -EROFS,
		       "is on a read-only file system; use -o ro");
	assert_opened(t, image(t, at(t, "x/ram.img"), false), "x/ram.img");
	assert_return_code(umount(at(t, "x")), errno);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policy_words),
		cmocka_unit_test(test_image),
		cmocka_unit_test(test_image_relative),
		cmocka_unit_test(test_image_with_colon),
		cmocka_unit_test(test_image_direct),
		cmocka_unit_test(test_image_of_wrong_kind),
		cmocka_unit_test(test_image_missing),
		cmocka_unit_test(test_image_deleted),
		cmocka_unit_test(test_same_directory),
		cmocka_unit_test(test_outside_the_directory),
		cmocka_unit_test(test_parent_below_top),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_listed),
		cmocka_unit_test(test_writing_takes_a_name),
		cmocka_unit_test(test_protocols),
		cmocka_unit_test(test_named_of_wrong_kind),
		cmocka_unit_test(test_hostile_names),
		cmocka_unit_test(test_device_node_beside_the_image),
		cmocka_unit_test(test_block_devices),
		cmocka_unit_test(test_image_in_the_root),
		cmocka_unit_test(test_no_permission),
		cmocka_unit_test(test_file_system_that_cannot),
	};

	return cmocka_run_group_tests_name("base/locate", tests, setup, teardown);
}
