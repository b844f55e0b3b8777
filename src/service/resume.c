/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What outlives a supervisor: the descriptors, by name (handover.h), and the state (state.h).
 *
 *   state    the memfd of state.h             fuse     the connection
 *   life     read end of the pipe of core.h   clone-N  its clones
 *   slots-V-N  request memory for N threads, laid out as version V has it
 *   entry    our line in the list of exports
 *   image-r  image-w    the image, as it is open; only one of them, but for a moment of a reload
 *   file-N-r file-N-w   the other files, in the order of the state
 *
 * Names say what would otherwise have to be changed at one instant in two places: a supervisor may
 * be killed between any two steps. So a replacement is stored before what it replaces is removed,
 * and the receiver takes the better one.
 */

#include "service/core.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "service/state.h"

/* Keeping. */

static const char *resume_mode(int fd)
{
	return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY ? "r" : "w";
}

void resume_list(const struct supervisor *s, struct handover *ret)
{
	*ret = (struct handover){};
	handover_add(ret, s->state_fd, "state");
	handover_add(ret, s->life_read, "life");
	handover_add(ret, s->session.fd, "fuse");
	for (unsigned i = 0; i < s->session.n; i++)
		handover_add(ret, s->session.thread_fds[i], "clone-%u", i);
	handover_add(ret, s->session.slots_fd, "slots-%u-%u", slots_version, s->session.n);
	handover_add(ret, registry_fd(s->own), "entry");
	handover_add(ret, s->image_fd, "image-%s", resume_mode(s->image_fd));
	for (unsigned i = 0; i < s->files.n; i++)
		handover_add(ret, s->files.entries[i].fd, "file-%u-%s", i,
			     resume_mode(s->files.entries[i].fd));
}

/* Brings what is new into systemd's fd store. */
static void resume_store(struct supervisor *s, const struct handover *list)
{
	unsigned patience = HANDOVER_PATIENCE;

	for (unsigned i = 0; i < list->n; i++) {
		if (handover_find(&s->kept, list->fds[i].name) >= 0)
			continue;
		(void)handover_store(&s->report.notify, list->fds[i].name, list->fds[i].fd,
				     &patience);
		if (s->kept.n < HANDOVER_MAX)
			s->kept.fds[s->kept.n++] = list->fds[i];
	}
}

/* Takes out what the list does not name. */
static void resume_unstore(struct supervisor *s, const struct handover *list)
{
	for (unsigned i = 0; i < s->kept.n; i++)
		if (s->kept.fds[i].name[0] && handover_find(list, s->kept.fds[i].name) < 0)
			handover_unstore(&s->report.notify, s->kept.fds[i].name);
	s->kept = *list;
}

static void resume_write(struct supervisor *s, struct slots_carried *carried)
{
	const struct state state = {
		.slots_version = slots_version,
		.program = s->program,
		.syslog = s->syslog,
		.image = s->image,
		.target = s->target.path,
		.directory = s->target.directory,
		.source = s->source,
		.dev = s->dev,
		.entry = (char *)(uintptr_t)registry_path(s->own),
		.threads = s->session.n,
		.granted = s->session.granted,
		.opened = s->opened,
		/* One that is only tried is not yet in force */
		.config = s->reload.phase == RELOAD_TRYING ? s->reload.before : *s->config,
		.crashes = s->crashes,
		.files = s->files.entries,
		.n_files = s->files.n,
		.carried = carried,
	};
	struct handover list;
	int r = 0;

	if (!s->mounted || !s->source || s->released)
		return;
	if (s->state_fd < 0)
		r = s->state_fd = state_create();
	if (r >= 0) {
		resume_list(s, &list);
		resume_store(s, &list); /* before the state speaks of it */
		r = state_write(s->state_fd, &state);
	}
	if (r < 0) {
		log_msg(LOG_ERR, "%s: a successor could not go on from here: %s", s->image,
			strerrordesc_np(-r) ?: "?");
		return;
	}
	resume_unstore(s, &list);
}

void resume_save(struct supervisor *s)
{
	resume_write(s, NULL);
}

void resume_save_carried(struct supervisor *s)
{
	_cleanup_free_ struct slots_carried *carried = malloc(sizeof(*carried));

	if (carried)
		slots_carry(&s->slots, carried);
	resume_write(s, carried);
}

void resume_release(struct supervisor *s)
{
	s->released = true;
	for (unsigned i = 0; i < s->kept.n; i++)
		if (s->kept.fds[i].name[0])
			handover_unstore(&s->report.notify, s->kept.fds[i].name);
}

void resume_forget(struct supervisor *s)
{
	if (s->kept.n == 0)
		return;
	resume_release(s);
	handover_settle(&s->report.notify);
	s->kept.n = 0;
}

int resume_open_life(struct supervisor *s, struct diag *diag)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return diag_errno(diag, -errno, "a pipe");
	s->life_read = fds[0];
	s->life_write = fds[1];
	return 0;
}

/* Going on. */

/* The one of the two that has the wanted access mode, or else the other; -1: neither is there. */
static int resume_take_file(struct handover *h, const char *name, bool writable)
{
	char wanted[HANDOVER_NAME_MAX], other[HANDOVER_NAME_MAX];
	int fd;

	snprintf(wanted, sizeof(wanted), "%.16s-%s", name, writable ? "w" : "r");
	snprintf(other, sizeof(other), "%.16s-%s", name, writable ? "r" : "w");
	fd = handover_take(h, wanted);
	return fd >= 0 ? fd : handover_take(h, other);
}

/* The largest request memory: that was made last. */
static int resume_take_slots(struct handover *h)
{
	char prefix[HANDOVER_NAME_MAX], rest[HANDOVER_NAME_MAX];
	int best = -1, best_n = 0, fd;

	snprintf(prefix, sizeof(prefix), "slots-%u-", slots_version);
	while ((fd = handover_take_prefix(h, prefix, rest)) >= 0) {
		if (atoi(rest) > best_n) {
			closep(&best);
			best = fd;
			best_n = atoi(rest);
		} else {
			close(fd);
		}
	}
	return best;
}

/* A clone that is missing was lost together with its requests: a new one will do. */
static int resume_take_clones(struct session *session, struct handover *h)
{
	for (unsigned i = 0; i < session->n; i++) {
		char name[HANDOVER_NAME_MAX];

		snprintf(name, sizeof(name), "clone-%u", i);
		session->thread_fds[i] = handover_take(h, name);
		if (session->thread_fds[i] < 0)
			session->thread_fds[i] = session_clone(session->fd);
		if (session->thread_fds[i] < 0)
			return session->thread_fds[i];
	}
	return 0;
}

static int resume_take_session(struct supervisor *s, const struct state *state, struct handover *h,
			       struct diag *diag)
{
	struct session *session = &s->session;
	int r;

	*session = (struct session){.fd = handover_take(h, "fuse"), .slots_fd = -1};
	session->granted = state->granted;
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		session->thread_fds[i] = -1;
	/* What has another layout stays where it is until there is a state that does without */
	session->slots_fd = state->slots_version == slots_version
				    ? resume_take_slots(h)
				    : slots_create_carried(state->carried, state->threads);
	if (session->fd < 0 || session->slots_fd < 0)
		return diag_set(diag, -ENODATA, "the connection was not kept");
	r = slots_map(session->slots_fd, &s->slots, diag);
	if (r < 0)
		return r;
	session->n = s->slots.n;
	/* Unmounted in the middle of a reload: a worker will find that out, and close the image */
	if (!session_is_alive(session) && !h->by_exec)
		return diag_set(diag, -ENOTCONN, "the export was unmounted meanwhile");
	r = resume_take_clones(session, h);
	return r < 0 ? diag_errno(diag, r, "the connection") : 0;
}

static int resume_take_files(struct supervisor *s, struct state *state, struct handover *h,
			     struct diag *diag)
{
	s->image_fd = resume_take_file(h, "image", !state->config.read_only);
	if (s->image_fd < 0)
		return diag_set(diag, -ENODATA, "the image was not kept");
	s->files = (struct files){.top_fd = s->image_fd, .sealed = true};
	s->files.entries = TAKE_PTR(state->files);
	s->files.n = state->n_files;
	state->n_files = 0;
	for (unsigned i = 0; i < s->files.n; i++) {
		struct files_entry *e = &s->files.entries[i];
		char name[HANDOVER_NAME_MAX];

		snprintf(name, sizeof(name), "file-%u", i);
		e->fd = resume_take_file(h, name, e->writable);
		if (e->fd < 0)
			return diag_set(diag, -ENODATA, "%s was not kept", e->path);
	}
	return 0;
}

static void resume_take_entry(struct supervisor *s, const struct state *state, struct handover *h)
{
	const struct registry_entry entry = {
		.pid = getpid(), .size = state->opened.size, .read_only = state->config.read_only};
	int fd = handover_take(h, "entry");

	if (fd < 0)
		return;
	if (!state->entry || registry_adopt(fd, state->entry, &s->own) < 0)
		close(fd);
	registry_refresh(s->own, &entry);
}

/* What the state says about the export; its strings go over to s. */
static void resume_take_facts(struct supervisor *s, struct state *state)
{
	s->program = TAKE_PTR(state->program);
	s->image = TAKE_PTR(state->image);
	s->target = (struct target){.path = TAKE_PTR(state->target), .directory = state->directory};
	s->source = TAKE_PTR(state->source);
	s->dev = (dev_t)state->dev;
	s->opened = state->opened;
	s->crashes = state->crashes;
	s->own_config = state->config;
	state->config = (struct config){};
	s->config = &s->own_config;
	s->files.policy = &s->own_config.backing;
	s->files.top = s->image;
	s->files.writable = !s->config->read_only;
	s->files.direct = s->config->direct_io;
	s->files.lock = s->config->lock;
}

/* Lets go of a session that nobody can go on with: its mount becomes a dead one, which the start
 * that follows takes away. */
static void resume_drop(struct supervisor *s, struct handover *h, const char *why)
{
	log_msg(LOG_WARNING, "an earlier run cannot be gone on with, starting anew: %s", why);
	resume_forget(s);
	s->released = false; /* the next one is kept */
	slots_unmap(&s->slots);
	session_close(&s->session);
	files_done(&s->files);
	closep(&s->image_fd);
	s->image_fd = -1;
	closep(&s->state_fd);
	s->state_fd = -1;
	handover_done(h);
}

static int resume_take_all(struct supervisor *s, struct state *state, struct handover *h,
			   struct diag *diag)
{
	int r = resume_take_session(s, state, h, diag);

	if (r == 0)
		r = resume_take_files(s, state, h, diag);
	if (r < 0)
		return r;
	s->life_read = handover_take(h, "life");
	resume_take_entry(s, state, h);
	resume_take_facts(s, state);
	s->mounted = s->ready = s->resumed = true;
	return 0;
}

int resume_take(struct supervisor *s, struct handover *h, struct diag *diag)
{
	_cleanup_(state_done) struct state state = {};
	struct diag why = {0};
	int offer_fd, r;

	if (h->n == 0)
		return 0;
	s->kept = *h;
	offer_fd = handover_take(h, "offer");
	s->state_fd = handover_take(h, "state");
	r = s->state_fd < 0 ? diag_set(&why, -ENODATA, "its state was not kept")
			    : state_read(s->state_fd, &state, &why);
	if (r == 0 && state.slots_version != slots_version && !state.carried)
		r = diag_set(&why, -EPROTONOSUPPORT,
			     "its request memory has version %u, this fuseimg knows %u: go on with "
			     "the version of fuseimg that made it",
			     state.slots_version, slots_version);
	if (r == -EPROTONOSUPPORT || r == -ENOMEM)
		return diag_set(diag, r, "%s", why.text);
	if (r == 0)
		r = resume_take_all(s, &state, h, &why);
	if (r < 0) {
		closep(&offer_fd);
		resume_drop(s, h, why.text);
		return 0;
	}
	handover_done(h);
	s->syslog = state.syslog;
	if (s->syslog)
		log_init("fuseimg", LOG_TO_SYSLOG);
	if (offer_fd >= 0)
		reload_try(s, offer_fd);
	return 1;
}

/* The last one of an earlier run is gone. */
static int resume_on_life(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct supervisor *s = data;
	struct diag diag = {0};
	char path[64];
	int r = 0;

	s->life = sd_event_source_unref(s->life);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->life_read);
	s->life_write = open(path, O_WRONLY | O_CLOEXEC);
	if (s->life_write < 0)
		r = diag_errno(&diag, -errno, "the pipe that shows our end");
	if (r == 0)
		r = fit_all(s, &diag);
	if (r < 0 && reload_revert(s, diag.text))
		r = fit_all(s, &diag);
	if (r == 0) {
		resume_save(s);
		r = attend_start(s, &diag);
	}
	if (r < 0)
		supervisor_give_up(s, r, diag.text);
	return 0;
}

int resume_start(struct supervisor *s, struct diag *diag)
{
	struct pollfd p = {.fd = s->life_read};
	int r = 0;

	if (s->life_read < 0) { /* lost: nobody can be waited for */
		r = resume_open_life(s, diag);
		closep(&s->life_write);
	} else if (poll(&p, 1, 0) == 0) {
		log_msg(LOG_NOTICE, "%s: waiting for the end of the last worker", s->image);
	}
	if (r < 0)
		return r;
	/* Without interest in any event it is only told of the end */
	r = sd_event_add_io(s->event, &s->life, s->life_read, 0, resume_on_life, s);
	if (r >= 0)
		r = unmount_watch(s, diag);
	return r < 0 ? diag_errno(diag, r, "watching for the last worker's end") : 0;
}
