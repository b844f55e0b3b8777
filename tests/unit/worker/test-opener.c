/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The supervisor's part is played by answers that lie in the socket already. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "session/channel.h"
#include "worker/opener.h"

struct ends {
	int ours, theirs;
	struct opener opener;
};

static int setup(void **state)
{
	static struct ends e;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	e.ours = pair[0];
	e.theirs = pair[1];
	opener_init(&e.opener, e.theirs);
	*state = &e;
	return 0;
}

static int teardown(void **state)
{
	struct ends *e = *state;

	if (e->ours >= 0)
		close(e->ours);
	close(e->theirs);
	return 0;
}

static int ask(struct ends *e, struct store **ret, struct diag *diag)
{
	return e->opener.base.open(&e->opener.base, "/srv/top.qcow2", IMAGE_ROLE_BACKING, "base",
				   false, ret, diag);
}

static void test_asks_and_receives(void **state)
{
	struct ends *e = *state;
	struct channel_msg msg = {.type = CHANNEL_FILE, .text = "/srv/base"};
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fds[CHANNEL_FDS_MAX];
	struct store *store = NULL;
	size_t n = 0;
	char magic[4];

	assert_int_equal(channel_send(e->ours, &msg, &fd, 1), 0);
	close(fd);
	assert_int_equal(ask(e, &store, NULL), 0);
	assert_string_equal(store->name, "/srv/base");
	assert_true(store->read_only);
	assert_int_equal(store_read(store, magic, sizeof(magic), 0), sizeof(magic));
	assert_memory_equal(magic, "\177ELF", sizeof(magic));
	store_close(store);

	assert_int_equal(channel_recv(e->ours, &msg, fds, &n), 1);
	assert_int_equal(n, 0);
	assert_int_equal(msg.type, CHANNEL_OPEN);
	assert_int_equal(msg.role, CHANNEL_ROLE_BACKING);
	assert_false(msg.writable);
	assert_string_equal(msg.parent, "/srv/top.qcow2");
	assert_string_equal(msg.text, "base");
}

static void test_passes_on_a_refusal(void **state)
{
	struct ends *e = *state;
	const struct channel_msg msg = {
		.type = CHANNEL_FILE, .error = -EACCES, .text = "base is 100% outside"};
	struct store *store = NULL;
	struct diag diag = {0};

	assert_int_equal(channel_send(e->ours, &msg, NULL, 0), 0);
	assert_int_equal(ask(e, &store, &diag), -EACCES);
	assert_string_equal(diag.text, "base is 100% outside");
	assert_null(store);
}

static void test_other_answers(void **state)
{
	struct ends *e = *state;
	const struct channel_msg stop = {.type = CHANNEL_STOP}, empty = {.type = CHANNEL_FILE};
	struct store *store = NULL;
	struct diag diag = {0};

	assert_int_equal(channel_send(e->ours, &stop, NULL, 0), 0);
	assert_int_equal(ask(e, &store, &diag), -EPROTO);
	assert_int_equal(channel_send(e->ours, &empty, NULL, 0), 0);
	assert_int_equal(ask(e, &store, &diag), -EPROTO);
	close(e->ours);
	e->ours = -1;
	assert_int_equal(ask(e, &store, &diag), -EPIPE);
	assert_null(store);
}

static void test_long_name(void **state)
{
	struct ends *e = *state;
	char name[CHANNEL_TEXT_MAX + 1];
	struct store *store = NULL;
	struct diag diag = {0};

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(e->opener.base.open(&e->opener.base, "/srv/top", IMAGE_ROLE_DATA, name,
					     true, &store, &diag),
			 -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_asks_and_receives, setup, teardown),
		cmocka_unit_test_setup_teardown(test_passes_on_a_refusal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_name, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
