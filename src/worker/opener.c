/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker/opener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "session/channel.h"

_Static_assert((int)IMAGE_ROLE_BACKING == (int)CHANNEL_ROLE_BACKING, "one meaning on both ends");
_Static_assert((int)IMAGE_ROLE_DATA == (int)CHANNEL_ROLE_DATA, "one meaning on both ends");

/* The two strings of an OPEN; a name that has no room in it could not be opened either. */
static int opener_fill(struct channel_msg *msg, const char *parent, const char *name,
		       struct diag *diag)
{
	if (strlen(name) >= sizeof(msg->text))
		return diag_set(diag, -ENAMETOOLONG, "the name of a file that %s needs is too long",
				parent);
	snprintf(msg->text, sizeof(msg->text), "%s", name);
	snprintf(msg->parent, sizeof(msg->parent), "%s", parent);
	return 0;
}

static void opener_close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

static int opener_receive(int channel_fd, struct store **ret, struct diag *diag)
{
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	size_t n = 0;
	int r = channel_recv(channel_fd, &msg, fds, &n);

	if (r < 0)
		return diag_errno(diag, r, "waiting for a file from the supervisor");
	if (r == 0)
		return diag_set(diag, -EPIPE, "the supervisor is gone");
	if (msg.type == CHANNEL_FILE && msg.error < 0) {
		opener_close_all(fds, n);
		return diag_set(diag, msg.error, "%.*s", DIAG_MAX - 1, msg.text);
	}
	if (msg.type != CHANNEL_FILE || n != 1) {
		opener_close_all(fds, n);
		return diag_set(diag, -EPROTO, "the supervisor answered something else");
	}
	return store_file_new(fds[0], msg.text, ret, diag);
}

static int opener_open(struct image_opener *base, const char *parent, enum image_role role,
		       const char *name, bool writable, struct store **ret, struct diag *diag)
{
	struct opener *o = (struct opener *)base;
	struct channel_msg msg = {.type = CHANNEL_OPEN, .role = role, .writable = writable};
	int r;

	r = opener_fill(&msg, parent ?: "", name, diag);
	if (r < 0)
		return r;
	r = channel_send(o->channel_fd, &msg, NULL, 0);
	if (r < 0)
		return diag_errno(diag, r, "asking the supervisor for %s", name);
	return opener_receive(o->channel_fd, ret, diag);
}

void opener_init(struct opener *o, int channel_fd)
{
	o->base.open = opener_open;
	o->channel_fd = channel_fd;
}
