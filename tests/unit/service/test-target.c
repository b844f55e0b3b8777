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
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "service/target.h"
#include "session/session.h"

/* A directory of its own for each test: an image, an empty file, an empty directory. */
struct place {
	char dir[64];
	int image;
};

static const char *in(const struct place *p, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", p->dir, name);
	return path;
}

static void put(const struct place *p, const char *name, const char *text)
{
	_cleanup_fclose_ FILE *f = fopen(in(p, name), "we");

	assert_non_null(f);
	fputs(text, f);
}

static int setup(void **state)
{
	static struct place p;

	strcpy(p.dir, "/tmp/fuseimg-target-XXXXXX");
	if (!mkdtemp(p.dir))
		return -1;
	put(&p, "image", "disk");
	put(&p, "file", "");
	mkdir(in(&p, "dir"), 0700);
	p.image = open(in(&p, "image"), O_RDONLY | O_CLOEXEC);
	*state = &p;
	return p.image < 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"image", "file",  "link",	   "hard", "full",
					    "pipe",  "dir/x", "sub/image", "sub"};
	struct place *p = *state;

	close(p->image);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		remove(in(p, names[i]));
	rmdir(in(p, "dir"));
	return rmdir(p->dir);
}

static void assert_check(struct place *p, const char *name, int error, const char *words)
{
	struct target t = {0};
	struct diag diag = {0};
	bool cleaned = false;

	assert_int_equal(target_check(in(p, name), p->image, &t, &cleaned, &diag), error);
	assert_null(t.path);
	if (!strstr(diag.text, words))
		fail_msg("\"%s\" lacks \"%s\"", diag.text, words);
}

static void assert_fine(struct place *p, const char *name, bool directory, const char *real)
{
	struct target t = {0};
	bool cleaned = false;

	assert_int_equal(target_check(in(p, name), p->image, &t, &cleaned, NULL), 0);
	assert_int_equal(t.directory, directory);
	assert_string_equal(t.path, in(p, real));
	assert_false(cleaned);
	target_done(&t);
}

static void test_good_targets(void **state)
{
	struct place *p = *state;

	assert_fine(p, "file", false, "file");
	assert_fine(p, "dir", true, "dir");
	assert_fine(p, "dir/", true, "dir");
	assert_fine(p, "./dir/../file", false, "file");
	assert_int_equal(symlink("file", in(p, "link")), 0);
	assert_fine(p, "link", false, "file");
}

static void test_missing(void **state)
{
	assert_check(*state, "nothing", -ENOENT, "create an empty one");
	assert_check(*state, "file/x", -ENOTDIR, "file/x");
}

static void test_hides_nothing(void **state)
{
	struct place *p = *state;

	put(p, "full", "important");
	assert_check(p, "full", -ENOTEMPTY, "hide its 9 bytes");
	put(p, "dir/x", "");
	assert_check(p, "dir", -ENOTEMPTY, "not empty");
}

static void test_the_image_itself(void **state)
{
	struct place *p = *state;
	char image[128];

	assert_check(p, "image", -EINVAL, "is the image itself");
	strcpy(image, in(p, "image"));
	assert_int_equal(link(image, in(p, "hard")), 0);
	assert_check(p, "hard", -EINVAL, "is the image itself");
	assert_int_equal(symlink("image", in(p, "link")), 0);
	assert_check(p, "link", -EINVAL, "is the image itself");
}

/* A pipe must not be opened: that would wait for a writer. */
static void test_other_kinds(void **state)
{
	struct place *p = *state;
	struct target t = {0};
	bool cleaned;

	assert_int_equal(mkfifo(in(p, "pipe"), 0600), 0);
	assert_check(p, "pipe", -EINVAL, "neither a directory nor a regular file");
	assert_int_equal(target_check("/dev/null", p->image, &t, &cleaned, NULL), -EINVAL);
}

/* An export with nobody behind it is taken away; one that lives is in the way. */
static void test_exports_in_the_way(void **state)
{
	struct place *p = *state;
	char path[128];
	const struct session_mount_options options = {.source = "/srv/other.qcow2", .target = path};
	struct target t = {0};
	bool cleaned = false;
	struct session session = {0};
	struct diag diag = {0};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0)
		skip();
	strcpy(path, in(p, "dir"));
	assert_int_equal(session_open(&options, 1, &session, &diag), 0);
	assert_check(p, "dir", -EBUSY, "/srv/other.qcow2 is mounted there");
	session_close(&session);
	assert_int_equal(target_check(path, p->image, &t, &cleaned, &diag), 0);
	assert_true(cleaned);
	assert_string_equal(t.path, path);
	target_done(&t);
	assert_int_equal(umount2(path, MNT_DETACH), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good_targets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hides_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_image_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exports_in_the_way, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
