/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The handshake, against a made-up kernel at the other end of a socket. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "session/abi.h"
#include "session/session.h"

struct kernel {
	int fd, device; /* ours, and what session_handshake() takes for /dev/fuse */
};

static int set_up(void **state)
{
	static struct kernel k;
	int fd[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd) < 0)
		return -1;
	k = (struct kernel){.fd = fd[0], .device = fd[1]};
	*state = &k;
	return 0;
}

static int tear_down(void **state)
{
	struct kernel *k = *state;

	close(k->fd);
	close(k->device);
	return 0;
}

struct init_request {
	struct fuse_in_header header;
	struct fuse_init_in in;
};

struct init_answer {
	struct fuse_out_header header;
	struct fuse_init_out out;
};

static void ask(struct kernel *k, uint64_t unique, struct fuse_init_in in, size_t in_len)
{
	struct init_request rq = {
		.header = {.len = (uint32_t)(sizeof(rq.header) + in_len),
			   .opcode = FUSE_INIT,
			   .unique = unique},
		.in = in,
	};

	assert_int_equal(write(k->fd, &rq, rq.header.len), rq.header.len);
}

/* Bytes of fuse_init_out in the answer. */
static size_t answer(struct kernel *k, struct init_answer *ret)
{
	ssize_t n;

	memset(ret, 0xee, sizeof(*ret));
	n = recv(k->fd, ret, sizeof(*ret), MSG_DONTWAIT);
	assert_true(n >= (ssize_t)sizeof(ret->header));
	assert_int_equal(ret->header.len, n);
	return (size_t)n - sizeof(ret->header);
}

static void test_new_kernel(void **state)
{
	struct kernel *k = *state;
	struct session_granted g = {};
	struct init_answer a;

	ask(k, 2,
	    (struct fuse_init_in){.major = 7,
				  .minor = 45,
				  .max_readahead = 131072,
				  .flags = 0xffffffff,
				  .flags2 = 0xffffffff},
	    sizeof(struct fuse_init_in));
	assert_int_equal(session_handshake(k->device, &g, NULL), 0);
	assert_int_equal(answer(k, &a), sizeof(a.out));
	assert_int_equal(a.header.error, 0);
	assert_int_equal(a.header.unique, 2);
	assert_int_equal(a.out.major, 7);
	assert_int_equal(a.out.max_readahead, 131072);
	assert_int_equal(a.out.max_write, 1 << 20);
	assert_int_equal(a.out.max_pages, 256);
	assert_true(a.out.congestion_threshold < a.out.max_background);
	assert_int_equal(a.out.flags, (uint32_t)g.flags);
	assert_int_equal(a.out.flags2, g.flags >> 32);
	assert_true(g.flags & FUSE_DIRECT_IO_ALLOW_MMAP);
	assert_true(g.flags & FUSE_ASYNC_DIO);
	assert_true(g.flags & FUSE_INIT_EXT);
	/* what would break the promise that an answered write has reached the host */
	assert_false(g.flags & FUSE_WRITEBACK_CACHE);
	assert_false(g.flags & FUSE_POSIX_LOCKS);
	assert_int_equal(g.minor, ABI_MINOR);
}

/* Nothing that was not offered may be in the answer; flags2 counts only with INIT_EXT. */
static void test_only_what_is_offered(void **state)
{
	struct kernel *k = *state;
	struct session_granted g = {};
	struct init_answer a;

	ask(k, 4,
	    (struct fuse_init_in){.major = 7,
				  .minor = 35,
				  .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES,
				  .flags2 = 0xffffffff},
	    sizeof(struct fuse_init_in));
	assert_int_equal(session_handshake(k->device, &g, NULL), 0);
	assert_int_equal(answer(k, &a), sizeof(a.out));
	assert_int_equal(a.out.flags, FUSE_ASYNC_READ | FUSE_BIG_WRITES);
	assert_int_equal(a.out.flags2, 0);
	assert_int_equal(g.max_pages, 32);
	assert_int_equal(a.out.max_write, 32 * 4096);
	assert_int_equal(g.minor, 35);
}

/* Before 7.36 the request ends behind flags. */
static void test_short_request(void **state)
{
	struct kernel *k = *state;
	struct session_granted g = {};
	struct init_answer a;

	ask(k, 6, (struct fuse_init_in){.major = 7, .minor = 31, .flags = FUSE_MAX_PAGES}, 16);
	assert_int_equal(session_handshake(k->device, &g, NULL), 0);
	assert_int_equal(answer(k, &a), sizeof(a.out));
	assert_int_equal(g.flags, FUSE_MAX_PAGES);
}

static void test_old_answer_is_short(void **state)
{
	struct kernel *k = *state;
	struct session_granted g = {};
	struct init_answer a;

	ask(k, 6, (struct fuse_init_in){.major = 7, .minor = 22}, 16);
	assert_int_equal(session_handshake(k->device, &g, NULL), 0);
	assert_int_equal(answer(k, &a), 24);
}

static void test_too_old(void **state)
{
	struct kernel *k = *state;
	struct session_granted g = {.major = 99};
	struct diag diag = {};
	struct init_answer a;

	ask(k, 6, (struct fuse_init_in){.major = 7, .minor = 8}, 16);
	assert_int_equal(session_handshake(k->device, &g, &diag), -EPROTO);
	assert_string_equal(diag.text, "the kernel speaks FUSE 7.8, 7.12 is needed");
	assert_int_equal(answer(k, &a), 0);
	assert_int_equal(a.header.error, -EPROTO);
	assert_int_equal(g.major, 99);
}

/* A kernel of the future asks again when it hears our version. */
static void test_newer_major(void **state)
{
	struct kernel *k = *state;
	struct session_granted g = {};
	struct init_answer a;

	ask(k, 2, (struct fuse_init_in){.major = 8}, sizeof(struct fuse_init_in));
	ask(k, 4, (struct fuse_init_in){.major = 7, .minor = 39}, sizeof(struct fuse_init_in));
	assert_int_equal(session_handshake(k->device, &g, NULL), 0);
	answer(k, &a);
	assert_int_equal(a.header.unique, 2);
	assert_int_equal(a.out.major, 7);
	answer(k, &a);
	assert_int_equal(a.header.unique, 4);
}

static void test_nonsense(void **state)
{
	struct kernel *k = *state;
	struct session_granted g = {};
	struct diag diag = {};
	struct fuse_in_header h = {.len = sizeof(h) + 16, .opcode = FUSE_LOOKUP};
	char buf[sizeof(h) + 16] = {};

	assert_int_equal(write(k->fd, "x", 1), 1);
	assert_int_equal(session_handshake(k->device, &g, &diag), -EPROTO);
	ask(k, 2, (struct fuse_init_in){.major = 7, .minor = 39}, 8);
	assert_int_equal(session_handshake(k->device, &g, &diag), -EPROTO);
	memcpy(buf, &h, sizeof(h));
	assert_int_equal(write(k->fd, buf, sizeof(buf)), sizeof(buf));
	assert_int_equal(session_handshake(k->device, &g, &diag), -EPROTO);
	assert_non_null(strstr(diag.text, "INIT"));
}

static void test_reply_error(void **state)
{
	struct kernel *k = *state;
	struct fuse_out_header out;

	assert_int_equal(session_reply_error(k->device, 1234, EIO), 0);
	assert_int_equal(read(k->fd, &out, sizeof(out)), sizeof(out));
	assert_int_equal(out.unique, 1234);
	assert_int_equal(out.error, -EIO);
	assert_int_equal(out.len, sizeof(out));
}

static void test_close_takes_zeroed(void **state)
{
	struct session s = {};
	int before = dup(STDIN_FILENO);

	session_close(&s);
	session_close(&s);
	/* its zeroed fields name fd 0, which is not its to close */
	assert_int_equal(dup(STDIN_FILENO), before + 1);
	close(before + 1);
	close(before);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_new_kernel),
		TEST(test_only_what_is_offered),
		TEST(test_short_request),
		TEST(test_old_answer_is_short),
		TEST(test_too_old),
		TEST(test_newer_major),
		TEST(test_nonsense),
		TEST(test_reply_error),
		TEST(test_close_takes_zeroed),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
