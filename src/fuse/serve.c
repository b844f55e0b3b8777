/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/serve.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "base/activity.h"
#include "base/checked.h"
#include "fuse/crew.h"
#include "fuse/lookout.h"
#include "fuse/ops.h"

enum {
	SERVE_SIGNAL = SIGUSR1,
	SERVE_KICK_US = 500, /* between two signals to a thread that is to leave */
};

struct serve_thread {
	struct serve *s;
	struct request rq;
	struct lookout lookout;
	unsigned i;
	pthread_t id;
};

struct serve {
	struct share share;
	struct crew crew;
	int ended_fd;
	_Atomic bool stop;
	_Atomic int error;	/* the first that ended a thread */
	_Atomic unsigned alive; /* threads that have not left by themselves */
	unsigned n;		/* threads that run */
	struct serve_thread threads[];
};

/* Its only purpose is to end a read(2). */
static void serve_on_signal(int signal)
{
}

static int serve_install_signal(void)
{
	struct sigaction action = {.sa_handler = serve_on_signal};

	sigemptyset(&action.sa_mask);
	return sigaction(SERVE_SIGNAL, &action, NULL) < 0 ? -errno : 0;
}

/*
 * Forgets the request in hand. The unique goes first: a slot with one is a request that is owed an
 * answer, and OPEN would say that it was not executed.
 */
static void serve_idle(struct request *rq)
{
	struct fuse_in_header *in = rq->buf;

	__atomic_store_n(&in->unique, 0, __ATOMIC_RELEASE);
	atomic_store_explicit(&rq->slot->state, SLOT_OPEN, memory_order_release);
}

/* After a read(2) that brought nothing: 0 to go on, else the reason to end. */
static int serve_read_failed(const struct request *rq, int error)
{
	struct pollfd p = {.fd = rq->fd, .events = POLLIN};

	switch (error) {
	case EINTR:  /* told to stop, perhaps */
	case ENOENT: /* the request was withdrawn before we had it */
		return 0;
	case EAGAIN: /* somebody made the fd non-blocking */
		(void)poll(&p, 1, -1);
		return 0;
	case ECONNABORTED:
		return -ENODEV;
	default:
		return -error;
	}
}

/* Until told to stop (0), or until the connection ends (-ENODEV) or fails. */
static int serve_requests(struct serve *s, struct serve_thread *t)
{
	struct request *rq = &t->rq;
	int r;

	while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		ssize_t n;

		serve_idle(rq);
		crew_rest(&s->crew, t->i, rq->fd);
		if (crew_is_alone(&s->crew))
			lookout_wait(&t->lookout, rq->fd);
		else
			lookout_skip(&t->lookout);
		n = read(rq->fd, rq->buf, SLOT_REQUEST_MAX);
		if (n <= 0) {
			r = serve_read_failed(rq, n < 0 ? errno : ENODEV);
			serve_idle(rq);
			if (r < 0)
				return r;
			continue;
		}
		crew_take(&s->crew, rq->fd);
		r = ops_handle(rq, (size_t)n);
		crew_finish(&s->crew);
		if (r < 0)
			share_log(&s->share, r, UINT64_MAX, "answering a request of type %u",
				  rq->in ? rq->in->opcode : 0);
	}
	serve_idle(rq);
	return 0;
}

static void serve_left(struct serve *s, int error)
{
	int none = 0;

	crew_dismiss(&s->crew); /* who rests would not notice that the connection ended */
	if (error != -ENODEV)
		atomic_compare_exchange_strong(&s->error, &none, error);
	if (atomic_fetch_sub(&s->alive, 1) == 1)
		(void)eventfd_write(s->ended_fd, 1);
}

static void serve_replay(struct serve *s, struct request *rq)
{
	int r = ops_replay(rq);

	if (r < 0)
		share_log(&s->share, r, UINT64_MAX,
			  "answering a request that the last worker left");
	serve_idle(rq);
}

static void *serve_thread(void *data)
{
	struct serve_thread *t = data;
	sigset_t mask;
	int r;

	sigemptyset(&mask);
	sigaddset(&mask, SERVE_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
	activity_watch(&t->rq.slot->io);
	serve_replay(t->s, &t->rq);
	r = serve_requests(t->s, t);
	if (r < 0)
		serve_left(t->s, r);
	return NULL;
}

/* Slots from the first-th on, one after the other. */
static void serve_replay_rest(struct serve *s, const struct serve_options *o, unsigned first)
{
	for (unsigned i = first; i < o->n; i++) {
		struct request rq;

		request_init(&rq, &s->share, i, o->thread_fds[i]);
		atomic_store(&s->share.slots.head->replaying, i + 1);
		activity_watch(&rq.slot->io);
		serve_replay(s, &rq);
	}
	activity_watch(NULL);
	atomic_store(&s->share.slots.head->replaying, 0);
}

/* pthread_create() with every signal blocked in the new thread. */
static int serve_create_thread(struct serve_thread *t)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	sigdelset(&all, SIGSYS); /* tells of a forbidden system call, see worker/sandbox.h */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&t->id, NULL, serve_thread, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

/*
 * A thread that is not yet in read(2) when the signal comes would not notice it, so the signal is
 * repeated until the thread has left.
 */
static void serve_join(struct serve_thread *t)
{
	const struct timespec pause = {.tv_nsec = SERVE_KICK_US * 1000};

	while (pthread_tryjoin_np(t->id, NULL) == EBUSY) {
		pthread_kill(t->id, SERVE_SIGNAL);
		nanosleep(&pause, NULL);
	}
}

int serve_stop(struct serve *s)
{
	int r;

	if (!s)
		return 0;
	atomic_store(&s->stop, true);
	crew_dismiss(&s->crew);
	for (unsigned i = 0; i < s->n; i++)
		pthread_kill(s->threads[i].id, SERVE_SIGNAL);
	for (unsigned i = 0; i < s->n; i++)
		serve_join(&s->threads[i]);
	r = atomic_load(&s->error);
	crew_done(&s->crew);
	share_done(&s->share);
	if (s->ended_fd >= 0)
		close(s->ended_fd);
	free(s);
	return r;
}

/* Starts one more thread, which s->n counts from then on. */
static int serve_start_thread(struct serve *s, const struct serve_options *o)
{
	struct serve_thread *t = &s->threads[s->n];
	int r;

	t->s = s;
	t->i = s->n;
	request_init(&t->rq, &s->share, s->n, o->thread_fds[s->n]);
	r = serve_create_thread(t);
	if (r < 0)
		return r;
	s->n++;
	return 0;
}

static int serve_start_threads(struct serve *s, const struct serve_options *o, unsigned threads)
{
	int r;

	s->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->ended_fd < 0)
		return -errno;
	r = serve_install_signal();
	if (r < 0)
		return r;
	/* The last worker's threads may have died in a call */
	for (unsigned i = 0; i < o->n; i++)
		atomic_store(&slots_at(&s->share.slots, i)->io, 0);
	/* What no thread will own, as there may be fewer of them than the session has fds. Where
	 * one request is suspected of killing workers: all, so that its death tells which it is. */
	serve_replay_rest(s, o, o->config->careful ? 0 : threads);
	atomic_store(&s->alive, threads);
	while (r == 0 && s->n < threads)
		r = serve_start_thread(s, o);
	return r;
}

int serve_start(const struct serve_options *o, struct serve **ret, struct diag *diag)
{
	unsigned threads = o->config->threads ? o->config->threads : o->n;
	struct serve *s;
	int r;

	threads = (unsigned)min_u64(threads, o->n);
	s = calloc(1, sizeof(*s) + threads * sizeof(s->threads[0]));
	if (!s)
		return diag_errno(diag, -ENOMEM, "serving");
	s->ended_fd = -1;
	r = share_init(&s->share, o, diag);
	if (r < 0) {
		free(s);
		return r;
	}
	crew_init(&s->crew);
	if (o->n == 0 || o->n != s->share.slots.n)
		r = diag_set(diag, -EINVAL, "%u connections, but memory for %u requests", o->n,
			     s->share.slots.n);
	else if ((r = serve_start_threads(s, o, threads)) < 0)
		diag_errno(diag, r, "starting %u threads", threads);
	if (r < 0) {
		serve_stop(s);
		return r;
	}
	*ret = s;
	return 0;
}

int serve_ended_fd(const struct serve *s)
{
	return s->ended_fd;
}
