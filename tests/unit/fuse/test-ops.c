/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The frame around every request, and the replay of what a dead worker left. */

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "rig.h"

static int set_up(void **state)
{
	struct rig *rig = rig_new();

	rig_open(rig);
	*state = rig;
	return 0;
}

static int tear_down(void **state)
{
	rig_free(*state);
	return 0;
}

static void test_unknown_opcodes(void **state)
{
	const uint32_t opcodes[] = {
		0,	    7,	       ABI_OP_STATX, ABI_OP_STATX + 1, ABI_OP_MAX - 1,
		ABI_OP_MAX, CUSE_INIT, UINT32_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(opcodes); i++)
		assert_int_equal(rig_call(*state, opcodes[i], 1, NULL, 0), -ENOSYS);
}

/* What the kernel does without, or does itself, once it has heard ENOSYS. */
static void test_refused_for_good(void **state)
{
	const uint32_t opcodes[] = {FUSE_FLUSH,	      FUSE_ACCESS,    FUSE_GETXATTR,
				    FUSE_SETXATTR,    FUSE_LISTXATTR, FUSE_REMOVEXATTR,
				    FUSE_BMAP,	      FUSE_POLL,      FUSE_GETLK,
				    FUSE_SETLK,	      FUSE_SETLKW,    FUSE_COPY_FILE_RANGE,
				    FUSE_SETUPMAPPING};
	const uint8_t arg[128] = {};

	for (size_t i = 0; i < ARRAY_SIZE(opcodes); i++)
		assert_int_equal(rig_call(*state, opcodes[i], 1, arg, sizeof(arg)), -ENOSYS);
}

static void test_names_cannot_change(void **state)
{
	const uint32_t opcodes[] = {FUSE_CREATE, FUSE_MKNOD,	FUSE_MKDIR,  FUSE_SYMLINK,
				    FUSE_UNLINK, FUSE_RMDIR,	FUSE_RENAME, FUSE_RENAME2,
				    FUSE_LINK,	 ABI_OP_TMPFILE};
	const uint8_t arg[128] = {};

	for (size_t i = 0; i < ARRAY_SIZE(opcodes); i++)
		assert_int_equal(rig_call(*state, opcodes[i], 1, arg, sizeof(arg)), -EPERM);
	assert_int_equal(rig_call(*state, FUSE_IOCTL, 1, arg, sizeof(arg)), -ENOTTY);
	assert_int_equal(rig_call(*state, FUSE_READLINK, 1, NULL, 0), -EINVAL);
}

static void test_not_answered(void **state)
{
	const uint8_t arg[64] = {};

	assert_int_equal(rig_call(*state, FUSE_FORGET, 1, arg, 8), RIG_NO_ANSWER);
	assert_int_equal(rig_call(*state, FUSE_BATCH_FORGET, 0, arg, 24), RIG_NO_ANSWER);
	assert_int_equal(rig_call(*state, FUSE_INTERRUPT, 0, arg, 8), RIG_NO_ANSWER);
	/* however malformed, nobody waits for it */
	assert_int_equal(rig_call(*state, FUSE_FORGET, 1, NULL, 0), RIG_NO_ANSWER);
}

static void test_answered_with_nothing(void **state)
{
	const uint8_t arg[64] = {};
	struct rig *rig = *state;
	const uint32_t opcodes[] = {FUSE_RELEASE, FUSE_RELEASEDIR, FUSE_FSYNCDIR, FUSE_DESTROY};

	for (size_t i = 0; i < ARRAY_SIZE(opcodes); i++) {
		assert_int_equal(rig_call(rig, opcodes[i], 1, arg, sizeof(arg)), 0);
		assert_int_equal(rig->body_len, 0);
	}
}

/* Each request one byte shorter than its fixed part, and without any of it. */
static void test_too_short(void **state)
{
	static const struct {
		uint32_t opcode;
		size_t min;
	} requests[] = {
		{FUSE_READ, sizeof(struct fuse_read_in)},
		{FUSE_WRITE, sizeof(struct fuse_write_in)},
		{FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in)},
		{FUSE_LSEEK, sizeof(struct fuse_lseek_in)},
		{FUSE_FSYNC, sizeof(struct fuse_fsync_in)},
		{FUSE_OPEN, sizeof(struct fuse_open_in)},
		{FUSE_OPENDIR, sizeof(struct fuse_open_in)},
		{FUSE_LOOKUP, 1},
		{FUSE_GETATTR, sizeof(struct fuse_getattr_in)},
		{FUSE_SETATTR, sizeof(struct fuse_setattr_in)},
		{FUSE_READDIR, sizeof(struct fuse_read_in)},
		{FUSE_READDIRPLUS, sizeof(struct fuse_read_in)},
	};
	const uint8_t arg[128] = {};

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		assert_int_equal(rig_call(*state, requests[i].opcode, 1, arg, 0), -EIO);
		assert_int_equal(rig_call(*state, requests[i].opcode, 1, arg, requests[i].min - 1),
				 -EIO);
	}
}

/* The header's own idea of the length is compared with what was read. */
static void test_length_lies(void **state)
{
	struct rig *rig = *state;
	const struct fuse_getattr_in arg = {};
	struct fuse_in_header *in = rig->rq.buf;
	const uint32_t lies[] = {0, sizeof(*in), 57, UINT32_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		size_t len =
			rig_compose(in, 8, FUSE_GETATTR, 1, (struct rig_bytes){&arg, sizeof(arg)});

		in->len = lies[i];
		assert_int_equal(ops_handle(&rig->rq, len), 0);
		assert_int_equal(rig_answer(rig), -EIO);
	}
	for (size_t len = 0; len < sizeof(*in); len++)
		assert_int_equal(ops_handle(&rig->rq, len), -EBADMSG);
	assert_int_equal(rig_answer(rig), RIG_NO_ANSWER);
}

static void test_counters(void **state)
{
	struct rig *rig = *state;
	struct slots_sum sum;
	const struct fuse_fsync_in fsync = {};

	rig_read(rig, 1, 0, 1000);
	rig_read(rig, 1, RIG_SIZE - 10, 1000);
	rig_write(rig, 1, 0, "abc", 3);
	rig_call(rig, FUSE_FSYNC, 1, &fsync, sizeof(fsync));
	rig_call(rig, FUSE_STATFS, 1, NULL, 0);
	rig_call(rig, 9999, 1, NULL, 0);
	slots_sum(&rig->share.slots, &sum);
	assert_int_equal(sum.reads, 2);
	assert_int_equal(sum.read_bytes, 1010);
	assert_int_equal(sum.writes, 1);
	assert_int_equal(sum.write_bytes, 3);
	assert_int_equal(sum.flushes, 1);
	assert_int_equal(sum.others, 2);
	assert_int_equal(sum.errors, 0);
}

static void test_failure_is_told(void **state)
{
	struct rig *rig = *state;
	struct slots_sum sum;

	rig->rq.in = rig->rq.buf;
	assert_int_equal(ops_failed_at(&rig->rq, -EUCLEAN, 4096, 512, "reading"), -EIO);
	assert_int_equal(rig->log_error, -EUCLEAN);
	assert_int_equal(rig->log_off, 4096);
	assert_string_equal(rig->log_text, "reading 512 bytes");
	image_damaged(rig->image, "a table is torn");
	assert_int_equal(ops_failed_at(&rig->rq, -EUCLEAN, 4096, 512, "reading"), -EIO);
	assert_string_equal(rig->log_text, "a table is torn: reading 512 bytes");
	assert_int_equal(ops_failed(&rig->rq, -ENOSPC), -ENOSPC);
	assert_int_equal(ops_failed(&rig->rq, -EINVAL), -EIO);
	slots_sum(&rig->share.slots, &sum);
	assert_int_equal(sum.errors, 4);
}

/* --- replay --- */

static void assert_disk(struct rig *rig, uint64_t off, const char *text)
{
	char buf[64] = {};

	assert_int_equal(image_read(rig->image, buf, strlen(text), off), 0);
	assert_string_equal(buf, text);
}

static void test_replay_nothing(void **state)
{
	struct rig *rig = *state;

	rig_compose_write(rig->rq.buf, 0, 0, "lost");
	atomic_store(&rig->rq.slot->state, SLOT_DONE);
	assert_int_equal(ops_replay(&rig->rq), 0);
	assert_int_equal(rig_answer(rig), RIG_NO_ANSWER);
}

static void test_replay_open_is_executed(void **state)
{
	struct rig *rig = *state;

	rig_compose_write(rig->rq.buf, 50, 3, "again");
	assert_int_equal(ops_replay(&rig->rq), 0);
	assert_int_equal(rig_answer(rig), 0);
	assert_int_equal(rig->head.unique, 50);
	assert_int_equal(RIG_BODY(rig, struct fuse_write_out)->size, 5);
	assert_disk(rig, 3, "again");
	assert_int_equal(rig->rq.slot->state, SLOT_DONE);
}

/* Between the answer and the death another client may have written there: it must not be undone. */
static void test_replay_done_is_only_answered(void **state)
{
	struct rig *rig = *state;
	size_t len = rig_compose_write(rig->rq.buf, 52, 0, "old");

	assert_int_equal(ops_handle(&rig->rq, len), 0);
	assert_int_equal(rig_answer(rig), 0);
	assert_int_equal(rig->rq.slot->state, SLOT_DONE);
	assert_int_equal(image_write(rig->image, "new", 3, 0), 0);

	assert_int_equal(ops_replay(&rig->rq), 0);
	assert_int_equal(rig_answer(rig), 0);
	assert_int_equal(rig->head.unique, 52);
	assert_int_equal(RIG_BODY(rig, struct fuse_write_out)->size, 3);
	assert_disk(rig, 0, "new");
}

/* The answer of a failed request is kept too. */
static void test_replay_done_error(void **state)
{
	struct rig *rig = *state;
	size_t len = rig_compose_write(rig->rq.buf, 54, RIG_SIZE, "outside");

	assert_int_equal(ops_handle(&rig->rq, len), 0);
	assert_int_equal(rig_answer(rig), -ENOSPC);
	assert_int_equal(rig->rq.slot->state, SLOT_DONE);
	assert_int_equal(ops_replay(&rig->rq), 0);
	assert_int_equal(rig_answer(rig), -ENOSPC);
}

/* What changes nothing is executed again, whatever the disk says by now. Its answer, which was laid
 * over the end of the request, has left enough of that. */
static void test_reads_are_never_done(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(rig_read(rig, 1, 5000, 4), 0);
	assert_int_equal(rig->rq.slot->state, SLOT_OPEN);
	assert_int_equal(image_write(rig->image, "data", 4, 5000), 0);
	assert_int_equal(ops_replay(&rig->rq), 0);
	assert_int_equal(rig_answer(rig), 0);
	assert_int_equal(rig->head.unique, rig->unique);
	assert_int_equal(rig->body_len, 4);
	assert_memory_equal(rig->body, "data", 4);
}

static void test_replay_of_garbage(void **state)
{
	struct rig *rig = *state;
	struct fuse_in_header *in = rig->rq.buf;
	const uint32_t lens[] = {0, sizeof(*in) - 1, SLOT_REQUEST_MAX + 1, UINT32_MAX};
	const uint32_t reply_lens[] = {0, 15, SLOT_REPLY_MAX + 1, UINT32_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		rig_compose_write(rig->rq.buf, 60, 0, "x");
		in->len = lens[i];
		assert_int_equal(ops_replay(&rig->rq), 0);
		assert_int_equal(rig_answer(rig), -EIO);
		assert_int_equal(rig->head.unique, 60);
	}
	atomic_store(&rig->rq.slot->state, SLOT_DONE);
	for (size_t i = 0; i < ARRAY_SIZE(reply_lens); i++) {
		rig->rq.slot->reply_len = reply_lens[i];
		assert_int_equal(ops_replay(&rig->rq), 0);
		assert_int_equal(rig_answer(rig), -EIO);
	}
	/* an answer to another request */
	rig->rq.slot->reply_len = sizeof(struct fuse_out_header);
	memset(rig->rq.slot->reply, 0, SLOT_REPLY_MAX);
	assert_int_equal(ops_replay(&rig->rq), 0);
	assert_int_equal(rig_answer(rig), -EIO);
	assert_int_equal(rig->head.unique, 60);
}

/* An answer that cannot be sent: an error goes out in its place, so that nobody waits for ever. */
static void test_unsendable_answer(void **state)
{
	struct rig *rig = *state;
	int small = 4096;

	assert_int_equal(setsockopt(rig->device, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	assert_int_equal(rig_read(rig, 1, 0, 90000), -EIO);
	assert_int_equal(rig->log_error, -EMSGSIZE);
}

/* --- anything --- */

enum { RANDOM_REQUESTS = 30000, RANDOM_ARG_MAX = 256 };

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* A number that is likely to be near some limit. */
static uint64_t random_number(uint64_t *seed)
{
	static const uint64_t limits[] = {
		0, 16, 4096, RIG_SIZE, RIG_LIMIT, SLOT_DATA_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
	uint64_t v = random_next(seed);

	return v % 3 ? limits[v / 3 % ARRAY_SIZE(limits)] + v / 64 % 5 - 2 : v / 3;
}

static size_t random_request(struct rig *rig, uint64_t *seed)
{
	uint64_t arg[RANDOM_ARG_MAX / 8];
	struct fuse_in_header *in = rig->rq.buf;
	size_t len = random_next(seed) % RANDOM_ARG_MAX;

	for (size_t i = 0; i < ARRAY_SIZE(arg); i++) {
		arg[i] = random_number(seed);
		if (random_next(seed) % 2) /* two fields of 32 bits */
			arg[i] = (random_number(seed) & 0xff) << 32 | (uint32_t)random_number(seed);
	}
	len = rig_compose(in, random_next(seed) | 1, (uint32_t)(random_next(seed) % 56),
			  random_next(seed) % 5, (struct rig_bytes){arg, len});
	if (random_next(seed) % 16 == 0)
		in->len = (uint32_t)random_number(seed);
	return len;
}

/* Whatever arrives, there is one well-formed answer (rig_answer() checks it) and no harm; the
 * sanitizer builds see to that. */
static void test_random_requests(void **state)
{
	struct rig *rig = *state;
	uint64_t seed = 88172645463325252;

	for (unsigned i = 0; i < RANDOM_REQUESTS; i++) {
		size_t len = random_request(rig, &seed);

		atomic_store(&rig->rq.slot->state, SLOT_OPEN);
		if (i % 8) {
			assert_int_equal(ops_handle(&rig->rq, len), 0);
		} else {
			rig->rq.slot->state = (uint32_t)(random_next(&seed) % 3);
			rig->rq.slot->reply_len = (uint32_t)random_number(&seed);
			assert_int_equal(ops_replay(&rig->rq), 0);
		}
		rig_answer(rig);
		assert_int_equal(rig_answer(rig), RIG_NO_ANSWER);
	}
}

static int set_up_random(void **state)
{
	struct rig *rig = rig_new();

	rig->config.directory = true;
	rig->config.growable = true;
	rig_open(rig);
	*state = rig;
	return 0;
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_unknown_opcodes),
		TEST(test_refused_for_good),
		TEST(test_names_cannot_change),
		TEST(test_not_answered),
		TEST(test_answered_with_nothing),
		TEST(test_too_short),
		TEST(test_length_lies),
		TEST(test_counters),
		TEST(test_failure_is_told),
		TEST(test_replay_nothing),
		TEST(test_replay_open_is_executed),
		TEST(test_replay_done_is_only_answered),
		TEST(test_replay_done_error),
		TEST(test_reads_are_never_done),
		TEST(test_replay_of_garbage),
		TEST(test_unsendable_answer),
		cmocka_unit_test_setup_teardown(test_random_requests, set_up_random, tear_down),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
