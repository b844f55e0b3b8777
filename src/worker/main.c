/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * fuseimg-worker: reads and writes one image on behalf of the kernel's requests, with no rights at
 * all. The supervisor starts it with a socket (session/channel.h) and nothing else; it takes no
 * arguments and reads no configuration.
 *
 * The main thread keeps the conversation; the threads of fuse/serve.h do the work.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/activity.h"
#include "base/checked.h"
#include "base/rate.h"
#include "base/selector.h"
#include "base/setting.h"
#include "base/thread.h"
#include "fuse/serve.h"
#include "image/image.h"
#include "image/partition-find.h"
#include "session/channel.h"
#include "worker/opener.h"
#include "worker/sandbox.h"

enum { WORKER_IDLE_MS = 5000 };

enum worker_exit {
	WORKER_EXIT_DONE = 0,	  /* all is on stable storage */
	WORKER_EXIT_IMAGE = 1,	  /* the image could not be opened, or not be flushed */
	WORKER_EXIT_USAGE = 2,	  /* started by hand */
	WORKER_EXIT_SANDBOX = 3,  /* the rights could not be given up, so nothing was opened */
	WORKER_EXIT_PROTOCOL = 4, /* the supervisor said what it must not say */
	WORKER_EXIT_ORPHAN = 5,	  /* the supervisor is gone; the image was closed in order */
};

struct worker {
	struct worker_config config;
	char settings[CHANNEL_TEXT_MAX]; /* the file that they come from; "": -o */
	struct opener opener;
	struct image *image;
	struct partition_table *partitions; /* NULL: none, or those that the slots tell of */
	unsigned selected;		    /* number of the one that is wanted, 0: none */
	struct serve *serve;
	uint64_t tidy_ms;   /* when the image may tidy up; 0: never */
	struct slots slots; /* until this process ends: closing the image writes there */
	struct mutex log_lock;
	struct rate log_rate GUARDED_BY(log_lock);
};

/* Tells the supervisor why this was all, and passes the exit code through. */
static enum worker_exit worker_fail(const struct diag *diag, enum worker_exit code)
{
	struct channel_msg msg = {.type = CHANNEL_FAILED, .error = diag->error};

	snprintf(msg.text, sizeof(msg.text), "%s", diag->text);
	channel_send(CHANNEL_FD, &msg, NULL, 0);
	return code;
}

/* serve_log_fn: called by the serving threads. */
static void worker_log(void *data, int level, int error, uint64_t off, const char *text)
{
	struct worker *w = data;
	struct channel_msg msg = {
		.type = CHANNEL_LOG, .level = (uint32_t)level, .error = error, .offset = off};
	struct timespec now;
	unsigned held = 0;
	bool pass;

	clock_gettime(CLOCK_MONOTONIC, &now);
	mutex_lock(&w->log_lock);
	pass = rate_pass(&w->log_rate,
			 (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000, &held);
	mutex_unlock(&w->log_lock);
	if (!pass)
		return;
	if (held)
		snprintf(msg.text, sizeof(msg.text), "%s (and %u more messages)", text, held);
	else
		snprintf(msg.text, sizeof(msg.text), "%s", text);
	channel_send(CHANNEL_FD, &msg, NULL, 0);
}

/* In a signal handler, so nothing here locks or allocates. */
static void worker_forbidden(int nr)
{
	static struct channel_msg msg; /* too large for the stack of a thread that is at its end */

	msg.type = CHANNEL_FORBIDDEN;
	msg.call = nr;
	channel_send(CHANNEL_FD, &msg, NULL, 0);
}

static void worker_close_fds(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

/* The next message, which must be of this type; fds are the caller's then. */
static int worker_expect(enum channel_type type, struct channel_msg *ret, int *fds, size_t *ret_n)
{
	int r = channel_recv(CHANNEL_FD, ret, fds, ret_n);

	if (r < 0)
		return r;
	if (r == 0)
		return -EPIPE;
	if (ret->type == (uint32_t)type)
		return 0;
	worker_close_fds(fds, *ret_n);
	return ret->type == CHANNEL_STOP ? -ECANCELED : -EPROTO;
}

static const char *worker_settings(const struct worker *w)
{
	return w->settings[0] ? w->settings : NULL;
}

static int worker_open_image(struct worker *w, struct store *store, struct diag *diag)
{
	struct image_options options = {
		.format = w->config.format,
		.read_only = w->config.read_only,
		.snapshot = *w->config.snapshot ? w->config.snapshot : NULL,
		.discard = w->config.discard,
		.table_cache = w->config.table_cache,
		.again = w->config.again,
		.settings = worker_settings(w),
		.opener = &w->opener.base,
	};

	opener_init(&w->opener, CHANNEL_FD);
	return image_open(store, &options, &w->image, diag);
}

static int worker_select_partition(struct worker *w, struct diag *diag)
{
	struct selector selector;
	int r;

	if (!w->config.partition[0])
		return 0;
	r = selector_parse(w->config.partition, &selector);
	if (r == 0)
		r = partition_find(w->image, w->partitions, &selector, &w->selected, diag);
	return r < 0 ? diag_prefix(diag, "PARTITION=%s", w->config.partition) : 0;
}

/*
 * The partition table, unless the partitions are to stay as they are. That a disk has none, or
 * one that cannot be read, is a failure only where the partitions are what the image is wanted for.
 */
static int worker_read_partitions(struct worker *w, struct diag *diag)
{
	bool must = w->config.partitions == CHANNEL_PARTITIONS_MUST;
	struct setting without;
	int r;

	if (w->config.partitions != CHANNEL_PARTITIONS_READ && !must)
		return 0;
	r = partition_read(w->image, &w->partitions, diag);
	if (r == 0 && must && !w->partitions->kind)
		r = diag_set(diag, -ENODATA, "the disk has no partition table (%s does without)",
			     setting_place(&without, worker_settings(w), "partitions", "auto"));
	if (r == 0)
		r = worker_select_partition(w, diag);
	if (r < 0 && must)
		return diag_prefix(diag, "%s", w->image->name);
	if (r == 0)
		return 0;
	worker_log(w, LOG_WARNING, 0, UINT64_MAX, diag->text);
	*diag = (struct diag){0};
	return 0;
}

static int worker_send_opened(struct worker *w)
{
	struct channel_msg msg = {.type = CHANNEL_OPENED};

	snprintf(msg.opened.format, sizeof(msg.opened.format), "%s", w->image->format->name);
	msg.opened.size = image_size(w->image);
	msg.opened.unit = w->image->unit;
	msg.opened.read_only = w->image->read_only;
	return channel_send(CHANNEL_FD, &msg, NULL, 0);
}

/* What of the sandbox this system does not have is for the administrator to know. */
static void worker_log_lacks(struct worker *w, int lacks)
{
	static const struct {
		int lack;
		const char *text;
	} all[] = {
		{SANDBOX_LACKS_LANDLOCK,
		 "the worker goes without Landlock, which this system lacks or keeps from it"},
		{SANDBOX_LACKS_NAMESPACES,
		 "the worker goes without namespaces, which this system keeps from ordinary users"},
		{SANDBOX_LACKS_ROOT,
		 "the worker goes without an empty root directory: in a chroot it cannot have one"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (lacks & all[i].lack && !w->config.again)
			worker_log(w, LOG_WARNING, 0, UINT64_MAX, all[i].text);
}

/* START: the rights go before the first byte of the image is read. */
static enum worker_exit worker_start(struct worker *w)
{
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	struct diag diag = {0};
	struct store *store;
	size_t n = 0;
	int lacks;

	if (worker_expect(CHANNEL_START, &msg, fds, &n) < 0 || n != 1)
		return WORKER_EXIT_PROTOCOL;
	w->config = msg.config;
	snprintf(w->settings, sizeof(w->settings), "%s", msg.parent);
	lacks = sandbox_enter(worker_forbidden, &diag);
	if (lacks < 0)
		return worker_fail(&diag, WORKER_EXIT_SANDBOX);
	worker_log_lacks(w, lacks);
	if (store_file_new(fds[0], msg.text, &store, &diag) < 0 ||
	    worker_open_image(w, store, &diag) < 0 || worker_read_partitions(w, &diag) < 0)
		return worker_fail(&diag, WORKER_EXIT_IMAGE);
	if (worker_send_opened(w) < 0)
		return WORKER_EXIT_ORPHAN;
	return WORKER_EXIT_DONE;
}

/* SERVE: the fds are the serving threads' for as long as this process lives. */
static int worker_serve(struct worker *w, int *fds, struct diag *diag)
{
	struct channel_msg msg;
	size_t n = 0;
	int r = worker_expect(CHANNEL_SERVE, &msg, fds, &n);
	struct serve_options options = {
		.image = w->image,
		.config = &w->config,
		.granted = &msg.granted,
		.set_partitions = w->config.partitions != CHANNEL_PARTITIONS_KEEP,
		.partitions = w->partitions,
		.selected = w->selected,
		.log = worker_log,
		.log_data = w,
	};

	if (r < 0)
		return r;
	if (n < 2)
		return diag_set(diag, -EPROTO, "the supervisor sent too few descriptors");
	options.slots_fd = fds[0];
	r = slots_map(fds[0], &w->slots, diag);
	if (r < 0)
		return r;
	image_keep(w->image, (struct image_kept *)w->slots.head->kept);
	options.thread_fds = fds + 1;
	options.n = (unsigned)n - 1;
	r = serve_start(&options, &w->serve, diag);
	if (r < 0)
		return r;
	msg = (struct channel_msg){.type = CHANNEL_SERVING};
	channel_send(CHANNEL_FD, &msg, NULL, 0); /* a lost supervisor shows in the next poll */
	return 0;
}

_Static_assert(sizeof(struct image_kept) <= SLOTS_KEPT_MAX, "the image's note is kept");
_Static_assert(offsetof(struct image_kept, lost) == SLOTS_KEPT_LOST &&
		       sizeof((struct image_kept){0}.lost) == SLOTS_LOST_MAX * sizeof(int32_t),
	       "the supervisor knows where the note tells of what was lost");

static uint64_t worker_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Every few seconds the image may tidy up, until that fails. */
static void worker_tidy(struct worker *w)
{
	int r = image_idle(w->image);

	if (r < 0)
		worker_log(w, LOG_ERR, r, UINT64_MAX, "flushing the idle image");
	w->tidy_ms = r < 0 ? 0 : worker_now_ms() + WORKER_IDLE_MS;
}

/* What poll(2) is to wait for that. */
static int worker_until_tidy(const struct worker *w)
{
	uint64_t now = worker_now_ms();

	if (w->tidy_ms == 0)
		return -1;
	return w->tidy_ms > now ? (int)(w->tidy_ms - now) : 0;
}

/* One message of the supervisor's while requests are served. 1: go on. */
static int worker_hear(struct worker *w)
{
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	size_t n = 0;
	int r = channel_recv(CHANNEL_FD, &msg, fds, &n);

	if (r <= 0)
		return r < 0 ? r : -EPIPE;
	worker_close_fds(fds, n);
	if (msg.type == CHANNEL_STOP)
		return 0;
	if (msg.type != CHANNEL_PING)
		return -EPROTO;
	msg = (struct channel_msg){.type = CHANNEL_PONG, .opened.size = image_size(w->image)};
	channel_send(CHANNEL_FD, &msg, NULL, 0);
	return 1;
}

/* Until told to stop, or the connection ends (both 0), or the supervisor is gone (-EPIPE). */
static int worker_wait(struct worker *w)
{
	struct pollfd p[] = {
		{.fd = CHANNEL_FD, .events = POLLIN},
		{.fd = serve_ended_fd(w->serve), .events = POLLIN},
	};
	int r = 1;

	w->tidy_ms = worker_now_ms() + WORKER_IDLE_MS;
	/* For the supervisor, which wants to know why we do not answer */
	atomic_store(&w->slots.head->io, 0);
	activity_watch(&w->slots.head->io);
	while (r > 0) {
		int ready = poll(p, ARRAY_SIZE(p), worker_until_tidy(w));

		if (ready < 0)
			r = errno == EINTR ? 1 : -errno;
		else if (ready == 0)
			worker_tidy(w);
		else
			r = p[0].revents ? worker_hear(w) : 0;
	}
	activity_watch(NULL);
	return r;
}

/* Requests in hand are finished, then the image is closed; the outcome goes to the supervisor. */
static int worker_finish(struct worker *w, struct diag *diag)
{
	struct channel_msg msg = {.type = CHANNEL_CLOSING};
	int served, closed;

	/* What follows may take long, and nobody answers a PING meanwhile */
	channel_send(CHANNEL_FD, &msg, NULL, 0);
	served = serve_stop(w->serve);
	closed = image_close(w->image);
	msg = (struct channel_msg){.type = CHANNEL_DONE};
	w->serve = NULL;
	w->image = NULL;
	if (closed < 0)
		diag_errno(diag, closed,
			   "the last flush of the image failed, data may not be on stable storage");
	else if (served < 0)
		diag_errno(diag, served, "serving ended early");
	msg.error = closed < 0 ? closed : served;
	snprintf(msg.text, sizeof(msg.text), "%s", diag->text);
	channel_send(CHANNEL_FD, &msg, NULL, 0);
	return msg.error;
}

static enum worker_exit worker_run(struct worker *w)
{
	int fds[CHANNEL_FDS_MAX];
	struct diag diag = {0};
	enum worker_exit code = worker_start(w);
	int r, finished;

	if (code != WORKER_EXIT_DONE)
		return code;
	r = worker_serve(w, fds, &diag);
	if (r < 0 && diag.text[0]) {
		image_close(w->image);
		return worker_fail(&diag, WORKER_EXIT_IMAGE);
	}
	if (r >= 0)
		r = worker_wait(w);
	finished = worker_finish(w, &diag);
	if (r == -EPIPE)
		return WORKER_EXIT_ORPHAN;
	if (r < 0 && r != -ECANCELED)
		return WORKER_EXIT_PROTOCOL;
	return finished < 0 ? WORKER_EXIT_IMAGE : WORKER_EXIT_DONE;
}

static bool worker_has_channel(void)
{
	int domain = 0, type = 0;
	socklen_t len = sizeof(int);

	return getsockopt(CHANNEL_FD, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
	       getsockopt(CHANNEL_FD, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && domain == AF_UNIX &&
	       type == SOCK_SEQPACKET;
}

/* Stopping is the supervisor's to say: a signal to the whole group or unit must not tear the worker
 * from its requests. */
static void worker_ignore_signals(void)
{
	static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGUSR2, SIGALRM};

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
}

int main(int argc, char **argv)
{
	struct worker w = {0};
	enum worker_exit code;

	if (argc > 1 || !worker_has_channel()) {
		fprintf(stderr,
			"%s is a part of fuseimg that is not started by hand; see "
			"fuseimg(1)\n",
			program_invocation_short_name);
		return WORKER_EXIT_USAGE;
	}
	prctl(PR_SET_NAME, "fuseimg-worker");
	worker_ignore_signals();
	mutex_init(&w.log_lock);
	code = worker_run(&w);
	mutex_done(&w.log_lock);
	free(w.partitions);
	return (int)code;
}
