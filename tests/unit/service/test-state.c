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
#include <unistd.h>

#include "base/cleanup.h"
#include "service/state.h"

/* The layout as state.c has it, written down once more: what is stored must stay readable. */
enum {
	MAGIC = 0x46535441,
	VERSION = 2,
	HALF = 2 << 20,
};

struct head {
	uint32_t magic, version;
	uint64_t sequence, len, sum;
};

static uint64_t sum_of(uint64_t sequence, const char *text, size_t len)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325) ^ sequence;

	for (size_t i = 0; i < len; i++)
		sum = (sum ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
	return sum;
}

static void put_half(int fd, unsigned half, uint32_t version, uint64_t sequence, const char *text,
		     size_t len)
{
	struct head h = {MAGIC, version, sequence, len, sum_of(sequence, text, len)};

	assert_int_equal(pwrite(fd, text, len, (off_t)half * HALF + (off_t)sizeof(h)), len);
	assert_int_equal(pwrite(fd, &h, sizeof(h), (off_t)half * HALF), sizeof(h));
}

static char program[] = "/usr/bin/fuseimg", top[] = "/srv/top", target[] = "/run/fuseimg/disk";

#define TEXT(s) ((char[]){s})

static struct files_entry files[] = {
	{TEXT("/srv/top"), TEXT("base"), 1, false, -1, TEXT("/srv/base")},
	{TEXT("/srv/base"), TEXT("new\nline=\\x"), 2, true, -1, TEXT("/srv/other file")},
};

static struct state example(void)
{
	struct state s = {
		.slots_version = 1,
		.program = program,
		.syslog = true,
		.image = top,
		.target = target,
		.directory = true,
		.source = top,
		.dev = UINT64_MAX,
		.threads = 4,
		.granted = {.major = 7, .minor = 39, .flags = 1ULL << 40, .max_write = 1 << 20},
		.opened = {.format = "qcow2", .size = 1ULL << 45, .unit = 65536},
		.files = files,
		.n_files = 2,
	};

	assert_int_equal(config_init(&s.config), 0);
	assert_int_equal(config_set(&s.config, "image", "/srv/link", NULL), 0);
	return s;
}

static int stored(const struct state *s)
{
	int fd = state_create();

	assert_true(fd >= 0);
	assert_int_equal(state_write(fd, s), 0);
	return fd;
}

static void expect_same_config(const char *key, const char *value)
{
	_cleanup_close_ int fd = -1, again = -1;
	struct state s = example(), got;
	char a[4096] = "", b[4096] = "";

	assert_int_equal(config_set(&s.config, key, value, NULL), 0);
	fd = stored(&s);
	assert_int_equal(state_read(fd, &got, NULL), 0);
	/* Written again it is the same text */
	again = stored(&got);
	assert_true(pread(fd, a, sizeof(a), 0) > 0);
	assert_true(pread(again, b, sizeof(b), 0) > 0);
	assert_memory_equal(a, b, sizeof(a));
	state_done(&got);
	config_done(&s.config);
}

static void test_comes_back(void **state)
{
	struct state s = example(), got;
	_cleanup_close_ int fd = -1;

	s.crashes.held[3].unique = 77;
	s.crashes.held[3].blame = 14;
	s.crashes.n_recent = s.crashes.next = 2;
	s.crashes.recent[0] = 10;
	s.crashes.recent[1] = 20;
	fd = stored(&s);
	assert_int_equal(state_read(fd, &got, NULL), 0);
	assert_string_equal(got.program, s.program);
	assert_string_equal(got.target, s.target);
	assert_true(got.syslog && got.directory && !got.opened.read_only);
	assert_null(got.entry);
	assert_true(got.dev == UINT64_MAX && got.threads == 4);
	assert_memory_equal(&got.granted, &s.granted, sizeof(s.granted));
	assert_string_equal(got.opened.format, "qcow2");
	assert_true(got.opened.size == s.opened.size && got.opened.unit == 65536);
	assert_memory_equal(&got.crashes, &s.crashes, sizeof(s.crashes));
	assert_int_equal(got.n_files, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_string_equal(got.files[i].parent, files[i].parent);
		assert_string_equal(got.files[i].name, files[i].name);
		assert_string_equal(got.files[i].path, files[i].path);
		assert_int_equal(got.files[i].role, files[i].role);
		assert_int_equal(got.files[i].writable, files[i].writable);
		assert_int_equal(got.files[i].fd, -1);
	}
	state_done(&got);
	config_done(&s.config);
}

/* What the slots say, for a program that lays them out in another way. */
static void test_slots_come_back(void **state)
{
	struct slots_carried carried = {
		.opened = 5, .lost = {-5, -28}, .sum = {1, 2, 3, 4, 5, 6, 7, UINT64_MAX}};
	struct slots_windows *w = &carried.windows;
	struct state s = example(), got;
	_cleanup_close_ int fd = -1;

	carried.attr[SLOTS_NODES_MAX - 1] = (struct slots_attr){
		.set = 3, .mode = 0640, .uid = UINT32_MAX, .atime_ns = INT64_MIN, .ctime_ns = 9};
	for (unsigned i = 0; i < SLOTS_WINDOWS_MAX; i++)
		w->windows[i] =
			(struct slots_window){.off = UINT64_MAX - i, .len = i, .number = i + 1};
	atomic_store(&w->n, SLOTS_WINDOWS_MAX);
	w->names[0] = (struct slots_names){
		.n = 3, .selected = 2, .window = {7, SLOTS_WINDOWS_MAX - 1, 0}};
	s.carried = &carried;
	fd = stored(&s);
	assert_int_equal(state_read(fd, &got, NULL), 0);
	assert_memory_equal(got.carried, &carried, sizeof(carried));
	state_done(&got);
	s.carried = NULL;
	assert_int_equal(state_write(fd, &s), 0);
	assert_int_equal(state_read(fd, &got, NULL), 0);
	assert_null(got.carried);
	state_done(&got);
	config_done(&s.config);
}

static const char *const settings[][2] = {
	{"format", "qcow2"},	{"read_only", "yes"}, {"growable", "yes"},    {"discard", "ignore"},
	{"direct_io", "yes"},	{"lock", "no"},	      {"lock_wait", "7"},     {"cache", "none"},
	{"allow_other", "no"},	{"threads", "9"},     {"owner", "12"},	      {"group", "13"},
	{"mode", "0640"},	{"backing", "none"},  {"backing", "/a:/b c"}, {"table_cache", "4M"},
	{"snapshot", "a name"}, {"partitions", "no"}, {"partition", "2"},     {"image", "/other"},
};

static void expect_known(void *data, const char *key, const char *values, const char *help)
{
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (strcmp(settings[i][0], key) == 0)
			return;
	fail_msg("%s is in no test, and perhaps not in state-config.c", key);
}

static void test_every_setting(void **state)
{
	config_describe(CONFIG_OPTIONS, expect_known, NULL);

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		expect_same_config(settings[i][0], settings[i][1]);
}

static uint32_t threads_in(int fd)
{
	struct state got;
	uint32_t n;

	assert_int_equal(state_read(fd, &got, NULL), 0);
	n = got.threads;
	state_done(&got);
	return n;
}

/* Whoever is killed while it writes leaves what was written before. */
static void test_half_written(void **state)
{
	struct state s = example();
	_cleanup_close_ int fd = stored(&s);

	for (uint32_t n = 5; n < 12; n++) {
		off_t half = (n - 4) % 2 * (off_t)HALF; /* the one that is written next */
		char byte = 0;

		s.threads = n;
		assert_int_equal(state_write(fd, &s), 0);
		assert_int_equal(threads_in(fd), n);
		assert_int_equal(pread(fd, &byte, 1, half + 100), 1);
		byte ^= 1;
		assert_int_equal(pwrite(fd, &byte, 1, half + 100), 1);
		assert_int_equal(threads_in(fd), n - 1);
		byte ^= 1;
		assert_int_equal(pwrite(fd, &byte, 1, half + 100), 1);
	}
	config_done(&s.config);
}

static void expect_refused(int fd, int error, const char *words)
{
	struct state got;
	struct diag diag = {0};

	assert_int_equal(state_read(fd, &got, &diag), error);
	if (!strstr(diag.text, words))
		fail_msg("\"%s\" does not say \"%s\"", diag.text, words);
}

static void test_nothing_there(void **state)
{
	_cleanup_close_ int fd = state_create();

	expect_refused(fd, -EBADMSG, "damaged");
}

static void test_newer_version(void **state)
{
	struct state s = example();
	_cleanup_close_ int fd = stored(&s);

	put_half(fd, 1, VERSION + 1, 9, "what=ever", 10);
	expect_refused(fd, -EPROTONOSUPPORT, "version 3");
	config_done(&s.config);
}

/* The text of a good state, to be changed. */
static size_t good_text(char *buf, size_t size)
{
	struct state s = example();
	_cleanup_close_ int fd = stored(&s);
	struct head h;

	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	assert_true(h.magic == MAGIC && h.version == VERSION && h.len <= size);
	assert_int_equal(pread(fd, buf, h.len, sizeof(h)), h.len);
	config_done(&s.config);
	return h.len;
}

static void test_strange_lines(void **state)
{
	static const struct {
		const char *line; /* behind a good text */
		const char *words;
		int error; /* 0: -EBADMSG */
	} bad[] = {
		{"no equals sign", "damaged"},
		{"threads=0", "0 threads"},
		{"threads=65", "65 threads"},
		{"threads=-1", "threads"},
		{"threads=99999999999999999999", "threads"},
		{"syslog=2", "syslog"},
		{"file=1", "file"},
		{"file=1 7", "file"},
		{"file=1 0", "lacks a file's name"},
		{"crash.held=64 1 1", "crash.held"},
		{"crash.held=-1 1 1", "crash.held"},
		{"crash.recent=soon", "crash.recent"},
		{"slots.attr=271 1 1 1 1 1 1 1", "slots.attr"},
		{"slots.attr=0 1 1 1", "slots.attr"},
		{"slots.window=1 2", "slots.window"},
		{"slots.name=0", "slots.name"}, /* of no window */
		{"slots.opened=?", "slots.opened"},
		{"slots.lost=1", "slots.lost"},
		{"slots.sum=1 2 3", "slots.sum"},
		{"slots.selected=", "slots.selected"},
		{"config.threads=many", "many", -EPROTONOSUPPORT},
		{"config.nonsense=1", "another version", -EPROTONOSUPPORT},
	};
	char text[8192];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		_cleanup_close_ int fd = state_create();
		size_t n = good_text(text, sizeof(text) - 128);

		n += (size_t)sprintf(text + n, "%s", bad[i].line) + 1;
		put_half(fd, 0, VERSION, 1, text, n);
		expect_refused(fd, bad[i].error ?: -EBADMSG, bad[i].words);
	}
}

static void test_what_is_missing(void **state)
{
	static const char *const needed[] = {
		"program=", "image=", "target=", "source=", "config.image="};
	char text[8192];

	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		_cleanup_close_ int fd = state_create();
		size_t n = good_text(text, sizeof(text));

		for (char *p = text; p < text + n; p += strlen(p) + 1)
			if (strncmp(p, needed[i], strlen(needed[i])) == 0)
				*p = '_'; /* a key that nobody knows is nobody's */
		put_half(fd, 0, VERSION, 1, text, n);
		expect_refused(fd, -EBADMSG, "the saved state");
	}
}

/* Any text at all is refused or read, and leaves nothing behind (for the sanitizers). */
static void test_damage(void **state)
{
	char text[8192];

	srand(1);
	for (int i = 0; i < 3000; i++) {
		_cleanup_close_ int fd = state_create();
		size_t n = good_text(text, sizeof(text));
		struct state got;

		for (int j = rand() % 8; j >= 0; j--)
			text[(size_t)rand() % n] = (char)rand();
		put_half(fd, 0, VERSION, 1, text, (size_t)rand() % n + 1);
		if (state_read(fd, &got, NULL) == 0)
			state_done(&got);
	}
}

static void test_too_long(void **state)
{
	struct state s = example();
	_cleanup_close_ int fd = stored(&s);
	_cleanup_free_ char *name = malloc(HALF + 1);

	memset(name, 'x', HALF);
	name[HALF] = '\0';
	s.image = name;
	s.threads = 9;
	assert_int_equal(state_write(fd, &s), -EFBIG);
	assert_int_equal(threads_in(fd), 4);
	config_done(&s.config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_comes_back),    cmocka_unit_test(test_slots_come_back),
		cmocka_unit_test(test_every_setting), cmocka_unit_test(test_half_written),
		cmocka_unit_test(test_nothing_there), cmocka_unit_test(test_newer_version),
		cmocka_unit_test(test_strange_lines), cmocka_unit_test(test_what_is_missing),
		cmocka_unit_test(test_damage),	      cmocka_unit_test(test_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
