/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "session/channel.h"

static void files_entry_done(struct files_entry *e)
{
	free(e->parent);
	free(e->name);
	free(e->path);
	closep(&e->fd);
}

static const struct files_entry *files_find(const struct files *f, const struct files_request *q)
{
	for (unsigned i = 0; i < f->n; i++) {
		const struct files_entry *e = &f->entries[i];

		if (e->role == q->role && e->writable == q->writable &&
		    strcmp(e->parent, q->parent) == 0 && strcmp(e->name, q->name) == 0)
			return e;
	}
	return NULL;
}

bool files_goes_with_image(const char *parent, uint32_t role, const char *top)
{
	return role == CHANNEL_ROLE_DATA && strcmp(parent, top) == 0;
}

static bool files_known_parent(const struct files *f, const char *parent)
{
	if (strcmp(parent, f->top) == 0)
		return true;
	for (unsigned i = 0; i < f->n; i++)
		if (strcmp(parent, f->entries[i].path) == 0)
			return true;
	return false;
}

/* What an honest worker never asks. */
static int files_check(const struct files *f, const struct files_request *q, struct diag *diag)
{
	if (!files_known_parent(f, q->parent))
		return diag_set(diag, -EACCES,
				"the worker speaks for a file that it was not given");
	if (q->role != CHANNEL_ROLE_BACKING && q->role != CHANNEL_ROLE_DATA)
		return diag_set(diag, -EACCES, "the worker asks for a file in no known role");
	if (q->writable && (!f->writable || !files_goes_with_image(q->parent, q->role, f->top)))
		return diag_set(diag, -EACCES, "the worker asks to write what is only to be read");
	if (f->sealed)
		return diag_set(diag, -EACCES,
				"the image names a file that it did not name at the start");
	if (f->n == CHANNEL_OPENS_MAX)
		return diag_set(diag, -ELOOP, "the image needs more than %d other files",
				CHANNEL_OPENS_MAX);
	return 0;
}

/* Said here because the lock of the image would refuse with less to say. Longer cycles end at the
 * limit of the chain. */
static int files_check_top(const struct files *f, const struct files_entry *e, struct diag *diag)
{
	struct stat top, named;

	if (fstat(f->top_fd, &top) < 0 || fstat(e->fd, &named) < 0)
		return diag_errno(diag, -errno, "%s", e->path);
	if (top.st_dev == named.st_dev && top.st_ino == named.st_ino)
		return diag_set(diag, -ELOOP, "%s is named by itself, or by a file that it names",
				f->top);
	return 0;
}

static int files_add(struct files *f, const struct files_request *q, struct diag *diag)
{
	_cleanup_(files_entry_done) struct files_entry e = {
		.role = q->role, .writable = q->writable, .fd = -1};
	const struct locate_how how = {
		.writable = q->writable, .direct = f->direct, .settings = f->wait.settings};
	struct files_entry *grown;
	int r;

	r = locate_open_named(f->policy, f->top, q->parent, q->name, &how, &e.fd, &e.path, diag);
	if (r == 0)
		r = files_check_top(f, &e, diag);
	if (r == 0 && f->lock)
		r = lock_image_wait(e.fd, e.path, q->writable, &f->wait, diag);
	if (r < 0)
		return r;
	e.parent = strdup(q->parent);
	e.name = strdup(q->name);
	grown = reallocarray(f->entries, f->n + 1, sizeof(*grown));
	if (grown)
		f->entries = grown;
	if (!e.parent || !e.name || !grown)
		return diag_errno(diag, -ENOMEM, "%s", f->top);
	f->entries[f->n++] = e;
	e = (struct files_entry){.fd = -1};
	return 0;
}

int files_open(struct files *f, const struct files_request *request, int *ret_fd,
	       const char **ret_path, struct diag *diag)
{
	const struct files_entry *e = files_find(f, request);
	int r;

	if (!e) {
		r = files_check(f, request, diag);
		if (r >= 0)
			r = files_add(f, request, diag);
		if (r < 0)
			return r;
		e = &f->entries[f->n - 1];
	}
	*ret_fd = e->fd;
	*ret_path = e->path;
	return 0;
}

void files_done(struct files *f)
{
	for (unsigned i = 0; i < f->n; i++)
		files_entry_done(&f->entries[i]);
	free(f->entries);
	f->entries = NULL;
	f->n = 0;
}
