/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "service/busy.h"
#include "service/state.h"
#include "session/session.h"
#include "session/slots.h"

/* The image by its name, and as it is open: other names for one file are all right. */
static int prepare_check_image(const char *wanted, const struct state *state, int image_fd,
			       struct diag *diag)
{
	struct stat named, open;

	if (stat(wanted, &named) < 0)
		return diag_errno(diag, -errno, "IMAGE=%s", wanted);
	if (fstat(image_fd, &open) < 0)
		return diag_errno(diag, -errno, "%s", state->image);
	if (named.st_dev == open.st_dev && named.st_ino == open.st_ino)
		return 0;
	return diag_set(diag, -EBUSY,
			"IMAGE=%s is not the file that is mounted at %s (%s): stop the export and "
			"start it again to change the image",
			wanted, state->target, state->image);
}

static bool prepare_same_text(const char *a, const char *b)
{
	return strcmp(a ?: "", b ?: "") == 0;
}

static bool prepare_same_policy(const struct locate_policy *a, const struct locate_policy *b)
{
	return a->backing == b->backing && prepare_same_text(a->dirs, b->dirs);
}

/* What decides which bytes clients see, or belongs to the mount itself, stays as it is. */
static int prepare_check_fixed(const struct config *new, const struct config *old,
			       struct diag *diag)
{
	const struct {
		const char *key;
		bool same;
	} fixed[] = {
		{"FORMAT", prepare_same_text(new->format, old->format)},
		{"SNAPSHOT", prepare_same_text(new->snapshot, old->snapshot)},
		{"BACKING", prepare_same_policy(&new->backing, &old->backing)},
		{"DIRECT_IO", new->direct_io == old->direct_io},
		{"LOCK", new->lock == old->lock},
		{"ALLOW_OTHER", new->allow_other == old->allow_other},
	};

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (!fixed[i].same)
			return diag_set(diag, -EBUSY,
					"%s= cannot be changed while the image is mounted: stop "
					"the export and start it again",
					fixed[i].key);
	return 0;
}

/* The files that would be written to with the image were open for reading alone. */
static int prepare_check_files(const struct state *state, const char *settings, struct diag *diag)
{
	for (unsigned i = 0; i < state->n_files; i++) {
		const struct files_entry *e = &state->files[i];
		struct stat st;
		int r;

		if (!files_goes_with_image(e->parent, e->role, state->image))
			continue;
		if (stat(e->path, &st) < 0)
			return diag_errno(diag, -errno, "%s", e->path);
		r = locate_check_writing(&state->config.backing, e->path, st.st_mode, settings,
					 diag);
		if (r < 0)
			return r;
	}
	return 0;
}

static int prepare_check_writable(const struct state *state, int image_fd, const char *settings,
				  struct diag *diag)
{
	_cleanup_close_ int fd = -1;
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", image_fd);
	fd = open(link, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return diag_errno(diag, -errno, "%s cannot be opened for writing", state->image);
	return prepare_check_files(state, settings, diag);
}

/* Last, since it is the one thing that changes something: nobody may have the disk open for
 * writing, and from here on nobody can. */
static int prepare_make_read_only(const struct state *state, struct diag *diag)
{
	int r = session_remount(state->target, true);
	char who[DIAG_MAX / 2];

	if (r == -EBUSY && busy_describe(state->target, who, sizeof(who)) > 0)
		return diag_set(diag, r, "%s cannot be made read-only, it is in use by %s",
				state->target, who);
	return r < 0 ? diag_errno(diag, r, "%s cannot be made read-only", state->target) : 0;
}

static int prepare_check(const struct supervisor_options *options, const struct state *state,
			 int image_fd, struct diag *diag)
{
	const struct config *new = options->config;
	bool changes = new->read_only != state->config.read_only;
	int r = prepare_check_image(new->image, state, image_fd, diag);

	if (r == 0)
		r = prepare_check_fixed(new, &state->config, diag);
	if (r == 0 && changes && geteuid() != 0)
		r = diag_set(diag, -EPERM,
			     "READ_ONLY= can be changed while it is mounted by root only");
	if (r == 0 && changes)
		r = new->read_only
			    ? prepare_make_read_only(state, diag)
			    : prepare_check_writable(state, image_fd, options->settings, diag);
	return r;
}

int prepare_run(const struct supervisor_options *options, struct handover *h, struct diag *diag)
{
	_cleanup_(state_done) struct state state = {};
	struct config old;
	int r = state_read(handover_find(h, "state"), &state, diag);

	if (r == 0 && !options->fixed)
		r = prepare_check(options, &state, handover_find(h, "image"), diag);
	if (r < 0)
		return r;
	old = state.config;
	if (!options->fixed)
		state.config = *options->config;
	state.slots_version = slots_version; /* whoever executes us has to know */
	r = state_write(handover_find(h, "offer"), &state);
	state.config = old;
	return r < 0 ? diag_errno(diag, r, "the new state") : 0;
}
