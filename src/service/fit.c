/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What there is, made to fit the configuration in force: after a reload that changed it, and after
 * the death of a supervisor that was about to.
 *
 * A file is opened anew through /proc/self/fd: it is the same file whatever its name leads to by
 * now, and no path is walked that could lead into a mount which nobody serves.
 */

#include "service/core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/mounts.h"

static int fit_file(int *fd, const char *path, bool writable, bool lock, struct diag *diag)
{
	int flags = fcntl(*fd, F_GETFL), wanted = writable ? O_RDWR : O_RDONLY, r = 0;
	_cleanup_close_ int again = -1;
	char link[64];

	if (flags < 0)
		return diag_errno(diag, -errno, "%s", path);
	if ((flags & O_ACCMODE) == wanted)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", *fd);
	again = open(link, wanted | O_CLOEXEC | (flags & O_DIRECT));
	if (again < 0)
		return diag_errno(diag, -errno, "%s cannot be opened for %s", path,
				  writable ? "writing" : "reading");
	if (lock)
		r = lock_move(*fd, !writable, again, path, diag);
	if (r < 0)
		return r;
	close(*fd);
	*fd = TAKE_FD(again);
	return 0;
}

static int fit_files(struct supervisor *s, struct diag *diag)
{
	struct files *f = &s->files;
	bool lock = s->config->lock;
	int r;

	f->writable = !s->config->read_only;
	r = fit_file(&s->image_fd, s->image, f->writable, lock, diag);
	f->top_fd = s->image_fd;
	for (unsigned i = 0; r == 0 && i < f->n; i++) {
		struct files_entry *e = &f->entries[i];

		if (!files_goes_with_image(e->parent, e->role, s->image))
			continue;
		r = fit_file(&e->fd, e->path, f->writable, lock, diag);
		e->writable = f->writable;
	}
	return r;
}

static int fit_threads(struct supervisor *s, struct diag *diag)
{
	struct slots grown;
	int r;

	if (s->worker_config.threads <= s->session.n)
		return 0;
	r = session_grow(&s->session, s->worker_config.threads, diag);
	if (r == 0)
		r = slots_map(s->session.slots_fd, &grown, diag);
	if (r < 0)
		return r;
	slots_unmap(&s->slots);
	s->slots = grown;
	return 0;
}

int fit_all(struct supervisor *s, struct diag *diag)
{
	int r = fit_files(s, diag);

	supervisor_fill_worker_config(s);
	return r < 0 ? r : fit_threads(s, diag);
}

static int fit_on_mount(sd_event_source *source, const siginfo_t *end, void *data)
{
	struct supervisor *s = data;

	if (end->si_code != CLD_EXITED || end->si_status != 0)
		log_msg(LOG_ERR, "%s: the mount could not be made %s: %s", s->target.path,
			s->config->read_only ? "read-only" : "writable",
			end->si_code == CLD_EXITED ? strerrordesc_np(end->si_status) ?: "?"
						   : "killed");
	return 0;
}

void fit_mount(struct supervisor *s)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	const struct mounts_entry *e;
	pid_t pid;

	if (geteuid() != 0 || mounts_read(&m) < 0)
		return;
	e = mounts_at(&m, s->target.path);
	if (!e || e->dev != s->dev || e->read_only == s->config->read_only)
		return;
	pid = supervisor_fork(s); /* it may have to wait for a worker that is to come */
	if (pid == 0)
		_exit(-session_remount(s->target.path, s->config->read_only));
	if (pid > 0)
		(void)sd_event_add_child(s->event, NULL, pid, WEXITED, fit_on_mount, s);
}
