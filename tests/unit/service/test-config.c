/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "service/config.h"

static int setup(void **state)
{
	static struct config c;

	*state = &c;
	return config_init(&c);
}

static int teardown(void **state)
{
	config_done(*state);
	return 0;
}

static void assert_refused(struct config *c, const char *key, const char *value, const char *words)
{
	struct diag diag = {0};

	assert_int_equal(config_set(c, key, value, &diag), -EINVAL);
	if (!strstr(diag.text, words))
		fail_msg("\"%s\" lacks \"%s\"", diag.text, words);
}

static void test_defaults(void **state)
{
	const struct config *c = *state;

	assert_string_equal(c->format, "auto");
	assert_null(c->image);
	assert_null(c->snapshot);
	assert_false(c->read_only);
	assert_false(c->growable);
	assert_true(c->discard);
	assert_true(c->lock);
	assert_int_equal(c->cache, CONFIG_CACHE_AUTO);
	assert_int_equal(c->allow_other, CONFIG_AUTO);
	assert_int_equal(c->threads, 0);
	assert_int_equal(c->backing.backing, LOCATE_SAME_DIRECTORY);
	assert_false(c->has_mode || c->has_owner || c->has_group);
}

static void test_each_key(void **state)
{
	struct config *c = *state;

	assert_int_equal(config_set(c, "IMAGE", "/srv/a b.qcow2", NULL), 0);
	assert_string_equal(c->image, "/srv/a b.qcow2");
	assert_int_equal(config_set(c, "image", "/srv/other", NULL), 0);
	assert_string_equal(c->image, "/srv/other");
	assert_int_equal(config_set(c, "format", "raw", NULL), 0);
	assert_string_equal(c->format, "raw");
	assert_int_equal(config_set(c, "read-only", NULL, NULL), 0);
	assert_true(c->read_only);
	assert_int_equal(config_set(c, "READ_ONLY", "No", NULL), 0);
	assert_false(c->read_only);
	assert_int_equal(config_set(c, "snapshot", "before the upgrade", NULL), 0);
	assert_string_equal(c->snapshot, "before the upgrade");
	assert_int_equal(config_set(c, "growable", "1", NULL), 0);
	assert_true(c->growable);
	assert_int_equal(config_set(c, "discard", "ignore", NULL), 0);
	assert_false(c->discard);
	assert_int_equal(config_set(c, "cache", "none", NULL), 0);
	assert_int_equal(c->cache, CONFIG_CACHE_NONE);
	assert_int_equal(config_set(c, "direct_io", "on", NULL), 0);
	assert_true(c->direct_io);
	assert_int_equal(config_set(c, "allow_other", "no", NULL), 0);
	assert_int_equal(c->allow_other, CONFIG_NO);
	assert_int_equal(config_set(c, "allow_other", NULL, NULL), 0);
	assert_int_equal(c->allow_other, CONFIG_YES);
	assert_int_equal(config_set(c, "allow_other", "auto", NULL), 0);
	assert_int_equal(c->allow_other, CONFIG_AUTO);
	assert_int_equal(config_set(c, "threads", "64", NULL), 0);
	assert_int_equal(c->threads, 64);
	assert_int_equal(config_set(c, "threads", "auto", NULL), 0);
	assert_int_equal(c->threads, 0);
	assert_int_equal(config_set(c, "table-cache", "256k", NULL), 0);
	assert_int_equal(c->table_cache, 256 << 10);
	assert_int_equal(config_set(c, "TABLE_CACHE", "1G", NULL), 0);
	assert_int_equal(c->table_cache, 1 << 30);
	assert_int_equal(config_set(c, "table_cache", "auto", NULL), 0);
	assert_int_equal(c->table_cache, 0);
	assert_int_equal(config_set(c, "mode", "0640", NULL), 0);
	assert_int_equal(c->mode, 0640);
	assert_true(c->has_mode);
	assert_int_equal(config_set(c, "backing", "none", NULL), 0);
	assert_int_equal(c->backing.backing, LOCATE_NONE);
	assert_int_equal(config_set(c, "backing", "/srv:/var", NULL), 0);
	assert_int_equal(c->backing.backing, LOCATE_LISTED);
}

static void test_owner_and_group(void **state)
{
	struct config *c = *state;

	assert_int_equal(config_set(c, "owner", "root", NULL), 0);
	assert_int_equal(config_set(c, "group", "root", NULL), 0);
	assert_true(c->has_owner && c->has_group);
	assert_int_equal(c->owner, 0);
	assert_int_equal(c->group, 0);
	assert_int_equal(config_set(c, "owner", "12345", NULL), 0);
	assert_int_equal(config_set(c, "group", "4294967294", NULL), 0);
	assert_int_equal(c->owner, 12345);
	assert_int_equal(c->group, UINT32_MAX - 1);
	assert_refused(c, "owner", "no-such-user", "no user of this name");
	assert_refused(c, "group", "no-such-group", "no group of this name");
	assert_refused(c, "owner", "4294967295", "owner=4294967295");
	assert_refused(c, "owner", "-1", "owner=-1");
	assert_int_equal(c->owner, 12345);
}

static void test_refusals_name_what_is_allowed(void **state)
{
	struct config *c = *state;
	char long_name[257] = "";

	assert_refused(c, "read_only", "maybe", "read_only=maybe: must be yes|no");
	assert_refused(c, "discard", "yes", "must be unmap|ignore");
	assert_refused(c, "cache", "", "must be auto|none");
	assert_refused(c, "threads", "0", "must be auto|1..64");
	assert_refused(c, "threads", "65", "must be auto|1..64");
	assert_refused(c, "table_cache", "255K", "must be auto|256K..1G");
	assert_refused(c, "table_cache", "2G", "must be auto|256K..1G");
	assert_refused(c, "table_cache", "much", "must be auto|256K..1G");
	assert_refused(c, "mode", "1777", "must be 000..777");
	assert_refused(c, "mode", "rw", "must be 000..777");
	assert_refused(c, "image", "", "must be PATH");
	assert_refused(c, "snapshot", "", "must be ID|NAME");
	assert_refused(c, "snapshot", NULL, "snapshot needs a value: snapshot=ID|NAME");
	memset(long_name, 'x', sizeof(long_name) - 1);
	assert_refused(c, "snapshot", long_name, "must be ID|NAME");
	long_name[255] = '\0';
	assert_int_equal(config_set(c, "snapshot", long_name, NULL), 0);
	assert_refused(c, "image", NULL, "image needs a value: image=PATH");
	assert_refused(c, "format", "vmdk", "must be auto|raw");
	assert_refused(c, "format", "qcow", "must be auto|raw");
	assert_refused(c, "format", "a-name-that-is-longer-than-any-format", "must be auto|raw");
	assert_refused(c, "backing", "relative/dir", "relative/dir");
}

static void test_unknown_keys(void **state)
{
	struct config *c = *state;

	assert_refused(c, "read_olny", "yes", "did you mean read_only?");
	assert_refused(c, "grow", "yes", "grow: no such option");
	assert_refused(c, "xyzzy", "1", "xyzzy: no such option");
	assert_refused(c, "", NULL, "no such option");
	assert_refused(c, "bell\a", "1", "bell\\x07: no such option");
	assert_refused(c, "a-key-that-is-longer-than-all-keys-together", "1", "no such option");
}

static void test_options(void **state)
{
	struct config *c = *state;

	assert_int_equal(config_parse_options(c, "ro,threads=2,,image=/a\\,b\\\\c,", NULL), 0);
	assert_true(c->read_only);
	assert_int_equal(c->threads, 2);
	assert_string_equal(c->image, "/a,b\\c");
	assert_int_equal(config_parse_options(c, "rw", NULL), 0);
	assert_false(c->read_only);
	assert_int_equal(config_parse_options(c, "", NULL), 0);
	assert_int_equal(config_parse_options(c, "image=/a=b", NULL), 0);
	assert_string_equal(c->image, "/a=b");
	assert_int_equal(config_parse_options(c, "growable,=x", NULL), -EINVAL);
	assert_int_equal(config_parse_options(c, "growable,nope", NULL), -EINVAL);
}

static void count(void *data, const char *key, const char *values, const char *help)
{
	assert_true(key[0] && values[0] && help[0]);
	++*(unsigned *)data;
}

static void test_describe(void **state)
{
	unsigned n = 0, options;

	config_describe(CONFIG_OPTIONS, count, &n);
	assert_true(n >= 13);
	options = n;
	n = 0;
	config_describe(CONFIG_FILE, count, &n);
	assert_int_equal(n, options + 7); /* those for the generator */
}

static void assert_variable_refused(struct config *c, const char *key, const char *value,
				    const char *words)
{
	struct diag diag = {0};

	assert_int_equal(config_set_variable(c, key, value, &diag), -EINVAL);
	if (!strstr(diag.text, words))
		fail_msg("\"%s\" lacks \"%s\"", diag.text, words);
}

static void test_variables(void **state)
{
	struct config *c = *state;

	assert_int_equal(config_set_variable(c, "READ_ONLY", "yes", NULL), 0);
	assert_true(c->read_only);
	assert_int_equal(config_set_variable(c, "LOCK_WAIT", "90", NULL), 0);
	assert_int_equal(c->lock_wait, 90);
	assert_variable_refused(c, "THREADS", "0", "THREADS=0: must be auto|1..64");
	assert_variable_refused(c, "LOCK_WAIT", "5min", "LOCK_WAIT=5min: must be 0..86400");
	assert_variable_refused(c, "OWNER", "no-such-user", "OWNER=no-such-user: there is no user");
	assert_variable_refused(c, "read_only", "yes", "did you mean READ_ONLY?");
	assert_variable_refused(c, "READONLY", "yes", "did you mean READ_ONLY?");
	assert_variable_refused(c, "READ-ONLY", "yes", "READ-ONLY: no such setting");
	assert_variable_refused(c, "XYZZY", "yes", "XYZZY: no such setting");
	assert_variable_refused(c, "MODE", "\033[31m", "MODE=\\x1b[31m: must be");
}

static void test_variables_for_boot(void **state)
{
	struct config *c = *state;

	assert_int_equal(config_set_variable(c, "MOUNT", "/srv/a b/", NULL), 0);
	assert_string_equal(c->boot.mount, "/srv/a b/");
	assert_int_equal(config_set_variable(c, "PARTITION", "2", NULL), 0);
	assert_string_equal(c->boot.partition, "2");
	assert_int_equal(config_set_variable(c, "FSTYPE", "ext4", NULL), 0);
	assert_string_equal(c->boot.fstype, "ext4");
	assert_int_equal(config_set_variable(c, "MOUNT_OPTIONS", "nodev,nosuid", NULL), 0);
	assert_string_equal(c->boot.options, "nodev,nosuid");
	assert_int_equal(config_set_variable(c, "AUTOMOUNT", "yes", NULL), 0);
	assert_true(c->boot.automount);
	assert_int_equal(config_set_variable(c, "IDLE_TIMEOUT", "1min 30s", NULL), 0);
	assert_true(c->boot.idle_timeout == 90 * 1000000);
	assert_int_equal(config_set_variable(c, "NOFAIL", "no", NULL), 0);
	assert_false(c->boot.nofail);
	assert_int_equal(config_set_variable(c, "AUTOSTART", "no", NULL), 0);
	assert_false(c->boot.autostart);
	assert_variable_refused(c, "MOUNT", "srv", "MOUNT=srv: must be an absolute path");
	assert_variable_refused(c, "MOUNT", "//", "the root directory");
	assert_variable_refused(c, "MOUNT", "/srv/../etc", "without //, . and ..");
	assert_variable_refused(c, "MOUNT", "/srv//a", "without //, . and ..");
	assert_variable_refused(c, "MOUNT", "/a\nb", "control characters");
	assert_variable_refused(c, "PARTITION", "0", "must be N|LABEL=");
	assert_int_equal(config_set_variable(c, "PARTITION", "PARTLABEL=a b", NULL), 0);
	assert_string_equal(c->boot.partition, "PARTLABEL=a b");
	assert_variable_refused(c, "FSTYPE", "ext4 xfs", "no blanks");
	assert_variable_refused(c, "IDLE_TIMEOUT", "soon", "must be SECONDS");
	assert_refused(c, "mount", "/srv", "fuseimg.conf(5)");
}

static void assert_check(struct config *c, const char *words)
{
	struct diag diag = {0};

	assert_int_equal(config_check(c, &diag), words ? -EINVAL : 0);
	if (words && !strstr(diag.text, words))
		fail_msg("\"%s\" lacks \"%s\"", diag.text, words);
}

static void test_values_go_together(void **state)
{
	static const char *const need_mount[][2] = {
		{"FSTYPE", "xfs"}, {"MOUNT_OPTIONS", "ro"}, {"AUTOMOUNT", "yes"}};
	struct config *c = *state;

	assert_check(c, "IMAGE= is missing");
	config_set_variable(c, "IMAGE", "disk.img", NULL);
	assert_check(c, "absolute path");
	config_set_variable(c, "IMAGE", "/disk.img", NULL);
	assert_check(c, NULL);
	config_set_variable(c, "SNAPSHOT", "1", NULL);
	assert_check(c, "SNAPSHOT=1 can only be read: it needs READ_ONLY=yes");
	config_set_variable(c, "READ_ONLY", "yes", NULL);
	assert_check(c, NULL);
	config_set_variable(c, "IDLE_TIMEOUT", "1", NULL);
	assert_check(c, "AUTOMOUNT=yes");
	for (size_t i = 0; i < sizeof(need_mount) / sizeof(need_mount[0]); i++) {
		config_done(c);
		assert_int_equal(config_init(c), 0);
		config_set_variable(c, "IMAGE", "/disk.img", NULL);
		config_set_variable(c, need_mount[i][0], need_mount[i][1], NULL);
		assert_check(c, need_mount[i][0]);
		config_set_variable(c, "MOUNT", "/srv", NULL);
		assert_check(c, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_key, setup, teardown),
		cmocka_unit_test_setup_teardown(test_owner_and_group, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals_name_what_is_allowed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_unknown_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_options, setup, teardown),
		cmocka_unit_test_setup_teardown(test_variables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_variables_for_boot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_values_go_together, setup, teardown),
		cmocka_unit_test(test_describe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
