/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/opener.h"

#include "base/locate.h"

struct opener {
	struct image_opener opener;
	const struct config *config;
	const char *top; /* real path of the image; NULL until it is open */
};

/* A store on fd under its real path; takes both over. */
static int opener_store(int fd, char *path, struct store **ret, struct diag *diag)
{
	_cleanup_free_ char *name = path;

	return store_file_new(fd, name, ret, diag);
}

static int opener_open(struct image_opener *opener, const char *parent, enum image_role role,
		       const char *name, bool writable, struct store **ret, struct diag *diag)
{
	struct opener *o = (struct opener *)opener;
	char *path;
	int fd, r;

	r = locate_open_named(&o->config->backing, o->top, parent, name,
			      &(struct locate_how){.writable = writable}, &fd, &path, diag);
	return r < 0 ? r : opener_store(fd, path, ret, diag);
}

int opener_open_image(const char *path, const struct config *config, struct image **ret,
		      struct diag *diag)
{
	struct opener o = {.opener = {.open = opener_open}, .config = config};
	const struct image_options options = {.format = config->format,
					      .read_only = true,
					      .snapshot = config->snapshot,
					      .table_cache = config->table_cache,
					      .opener = &o.opener};
	struct store *store = NULL;
	char *real;
	int fd, r;

	r = locate_open_image(path, &(struct locate_how){}, &fd, &real, diag);
	if (r < 0)
		return r;
	r = opener_store(fd, real, &store, diag);
	if (r < 0)
		return r;
	o.top = store->name; /* lives as long as the image; asked for only while it is opened */
	return image_open(store, &options, ret, diag);
}
