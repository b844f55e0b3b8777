/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The threads; sockets are in the place of the cloned fds. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuse/crew.h"
#include "rig.h"

enum { THREADS = 3, SOON_MS = 60000 };

struct fixture {
	struct rig *rig;
	int kernel[THREADS], device[THREADS];
	struct slots slots; /* a second look at them, as the supervisor has */
	struct serve *serve;
};

static int set_up(void **state)
{
	static struct fixture f;
	int fd[2];

	f = (struct fixture){.rig = rig_new()};
	rig_open_image(f.rig, THREADS);
	assert_int_equal(slots_map(f.rig->slots_fd, &f.slots, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd), 0);
		f.kernel[i] = fd[0];
		f.device[i] = fd[1];
	}
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(serve_stop(f->serve), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		close(f->kernel[i]);
		close(f->device[i]);
	}
	slots_unmap(&f->slots);
	rig_free(f->rig);
	return 0;
}

static int start_n(struct fixture *f, unsigned n)
{
	const struct serve_options o = {.image = f->rig->image,
					.config = &f->rig->config,
					.granted = &f->rig->granted,
					.slots_fd = f->rig->slots_fd,
					.thread_fds = f->device,
					.n = n,
					.log = rig_log,
					.log_data = f->rig};
	struct diag diag = {};
	int r = serve_start(&o, &f->serve, &diag);

	if (r < 0)
		assert_string_not_equal(diag.text, "");
	return r;
}

static void start(struct fixture *f)
{
	assert_int_equal(start_n(f, THREADS), 0);
}

static void stop(struct fixture *f)
{
	assert_int_equal(serve_stop(f->serve), 0);
	f->serve = NULL;
}

/* The error of the answer that comes on the i-th connection. */
static int answer(struct fixture *f, unsigned i, uint64_t unique)
{
	struct pollfd p = {.fd = f->kernel[i], .events = POLLIN};
	int r;

	assert_int_equal(poll(&p, 1, SOON_MS), 1);
	f->rig->kernel = f->kernel[i];
	r = rig_answer(f->rig);
	f->rig->kernel = -1;
	assert_int_equal(f->rig->head.unique, unique);
	return r;
}

static void no_answer(struct fixture *f, unsigned i)
{
	struct pollfd p = {.fd = f->kernel[i], .events = POLLIN};

	assert_int_equal(poll(&p, 1, 20), 0);
}

static bool ended(struct fixture *f, int ms)
{
	struct pollfd p = {.fd = serve_ended_fd(f->serve), .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

static void ask_write(struct fixture *f, unsigned i, uint64_t unique, const char *text)
{
	uint8_t buf[4096];
	size_t len = rig_compose_write(buf, unique, i * 100, text);

	assert_int_equal(write(f->kernel[i], buf, len), len);
}

static void assert_disk(struct fixture *f, uint64_t off, const char *text)
{
	char buf[64] = {};

	assert_int_equal(image_read(f->rig->image, buf, strlen(text), off), 0);
	assert_string_equal(buf, text);
}

static void test_answers_where_it_was_asked(void **state)
{
	struct fixture *f = *state;

	start(f);
	for (unsigned i = 0; i < THREADS; i++)
		ask_write(f, i, 10 + i, "data");
	for (unsigned i = THREADS; i-- > 0;)
		assert_int_equal(answer(f, i, 10 + i), 0);
	assert_disk(f, 200, "data");
	assert_false(ended(f, 0));
}

/* After an answer the slot is empty, so that a successor replays nothing. */
static void test_slot_is_empty_behind_the_answer(void **state)
{
	struct fixture *f = *state;

	start(f);
	ask_write(f, 1, 10, "data");
	assert_int_equal(answer(f, 1, 10), 0);
	for (int i = 0; i < SOON_MS && slots_unique(&f->slots, 1) != 0; i++)
		usleep(1000);
	assert_int_equal(slots_unique(&f->slots, 1), 0);
	assert_int_equal(slots_at(&f->slots, 1)->state, SLOT_OPEN);
}

static void test_stop_while_idle(void **state)
{
	struct fixture *f = *state;

	start(f);
	stop(f);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(slots_unique(&f->slots, i), 0);
}

/* Also before the threads have reached read(2): the signal is repeated. */
static void test_stop_at_once_many_times(void **state)
{
	for (int i = 0; i < 50; i++) {
		start(*state);
		stop(*state);
	}
}

static void test_request_after_restart(void **state)
{
	struct fixture *f = *state;

	start(f);
	stop(f);
	ask_write(f, 0, 20, "later");
	no_answer(f, 0);
	start(f);
	assert_int_equal(answer(f, 0, 20), 0);
	assert_disk(f, 0, "later");
}

static void test_end_of_connection(void **state)
{
	struct fixture *f = *state;

	start(f);
	shutdown(f->kernel[0], SHUT_RDWR);
	shutdown(f->kernel[1], SHUT_RDWR);
	assert_false(ended(f, 50));
	shutdown(f->kernel[2], SHUT_RDWR);
	assert_true(ended(f, SOON_MS));
	stop(f);
}

/* An error that is no end of the connection is told by serve_stop(). */
static void test_broken_fd(void **state)
{
	struct fixture *f = *state;
	int good = f->device[0];

	f->device[0] = open("/", O_RDONLY | O_CLOEXEC);
	start(f);
	shutdown(f->kernel[1], SHUT_RDWR);
	shutdown(f->kernel[2], SHUT_RDWR);
	assert_true(ended(f, SOON_MS));
	assert_int_equal(serve_stop(f->serve), -EISDIR);
	f->serve = NULL;
	close(f->device[0]);
	f->device[0] = good;
}

/* Leaves a WRITE in slot i as a killed worker would. */
static void leave_write(struct fixture *f, unsigned i, uint64_t unique, const char *text)
{
	rig_compose_write(slots_request(&f->slots, i), unique, i * 100, text);
}

static void leave_done(struct fixture *f, unsigned i, uint64_t unique)
{
	struct slot *slot = slots_at(&f->slots, i);
	const struct fuse_out_header out = {.len = sizeof(out), .error = -EXDEV, .unique = unique};

	memcpy(slot->reply, &out, sizeof(out));
	slot->reply_len = sizeof(out);
	slot->state = SLOT_DONE;
}

static void test_replay(void **state)
{
	struct fixture *f = *state;

	leave_write(f, 0, 30, "redone");
	leave_write(f, 2, 32, "stale");
	leave_done(f, 2, 32);
	start(f);
	assert_int_equal(answer(f, 0, 30), 0);
	assert_disk(f, 0, "redone");
	assert_int_equal(answer(f, 2, 32), -EXDEV);
	assert_disk(f, 200, "");
	no_answer(f, 1);
	/* and then they serve */
	ask_write(f, 2, 34, "fresh");
	assert_int_equal(answer(f, 2, 34), 0);
	stop(f);
	start(f);
	for (unsigned i = 0; i < THREADS; i++)
		no_answer(f, i);
}

/* Fewer threads than connections: what lies in the other slots is answered all the same. */
static void test_replay_without_thread(void **state)
{
	struct fixture *f = *state;

	f->rig->config.threads = 1;
	leave_write(f, 1, 40, "one");
	leave_write(f, 2, 42, "two");
	start(f);
	assert_int_equal(answer(f, 1, 40), 0);
	assert_int_equal(answer(f, 2, 42), 0);
	assert_int_equal(slots_unique(&f->slots, 2), 0);
	ask_write(f, 1, 44, "nobody reads this one");
	no_answer(f, 1);
	ask_write(f, 0, 46, "zero");
	assert_int_equal(answer(f, 0, 46), 0);
}

/* So many in turn on one connection that the other threads rest (see crew.h). */
static void ask_in_turn(struct fixture *f)
{
	for (unsigned n = 0; n < 3 * CREW_WINDOW; n++) {
		ask_write(f, 0, 100 + n, "one by one");
		assert_int_equal(answer(f, 0, 100 + n), 0);
	}
}

static void test_the_others_come_back(void **state)
{
	struct fixture *f = *state;

	start(f);
	ask_in_turn(f);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < THREADS; i++) {
			ask_write(f, i, 10 + i, "after a pause");
			assert_int_equal(answer(f, i, 10 + i), 0);
		}
}

static void test_stop_while_the_others_rest(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 5; i++) {
		start(f);
		ask_in_turn(f);
		stop(f);
	}
}

static void test_end_of_connection_while_the_others_rest(void **state)
{
	struct fixture *f = *state;

	start(f);
	ask_in_turn(f);
	for (unsigned i = 0; i < THREADS; i++)
		shutdown(f->kernel[i], SHUT_RDWR);
	assert_true(ended(f, SOON_MS));
	stop(f);
}

static void test_signals_stay_out(void **state)
{
	struct fixture *f = *state;
	sigset_t term, old;
	int got;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &old);
	start(f);
	kill(getpid(), SIGTERM); /* would kill the process if a thread took it */
	ask_write(f, 0, 50, "alive");
	assert_int_equal(answer(f, 0, 50), 0);
	assert_int_equal(sigwait(&term, &got), 0);
	sigprocmask(SIG_SETMASK, &old, NULL);
}

static void test_bad_options(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(start_n(f, 0), -EINVAL);
	assert_int_equal(start_n(f, THREADS - 1), -EINVAL);
	assert_null(f->serve);
	assert_int_equal(serve_stop(NULL), 0);
}

static void test_malformed_requests_do_not_end_a_thread(void **state)
{
	struct fixture *f = *state;
	const char junk[] = "junk";

	start(f);
	for (int i = 0; i < 100; i++)
		assert_int_equal(write(f->kernel[0], junk, sizeof(junk)), sizeof(junk));
	ask_write(f, 0, 60, "alive");
	assert_int_equal(answer(f, 0, 60), 0);
	assert_true(f->rig->logged > 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_answers_where_it_was_asked),
		TEST(test_slot_is_empty_behind_the_answer),
		TEST(test_stop_while_idle),
		TEST(test_stop_at_once_many_times),
		TEST(test_request_after_restart),
		TEST(test_end_of_connection),
		TEST(test_broken_fd),
		TEST(test_replay),
		TEST(test_replay_without_thread),
		TEST(test_the_others_come_back),
		TEST(test_stop_while_the_others_rest),
		TEST(test_end_of_connection_while_the_others_rest),
		TEST(test_signals_stay_out),
		TEST(test_bad_options),
		TEST(test_malformed_requests_do_not_end_a_thread),
	};
#undef TEST

	return cmocka_run_group_tests(tests, NULL, NULL);
}
