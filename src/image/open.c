/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Opening an image: find the driver, let it read the header, then open the files that the header
 * names, and so on down the chain. Nothing that a header names is opened before its driver has
 * accepted the header, and nothing is ever opened while probing.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/setting.h"
#include "image/core.h"

/* Identities of the files opened so far: a chain that meets one again would never end. Each file of
 * it may have a data file. */
struct image_seen {
	unsigned n;
	uint64_t dev[2 * IMAGE_CHAIN_MAX], ino[2 * IMAGE_CHAIN_MAX];
};

static int image_seen_add(struct image_seen *seen, struct store *store, struct diag *diag)
{
	struct store_stat st;
	int r = store_stat(store, &st);

	if (r < 0)
		return diag_errno(diag, r, "%s: cannot be examined", store->name);
	if (st.dev == 0 && st.ino == 0) /* memory has no identity */
		return 0;
	for (unsigned i = 0; i < seen->n; i++)
		if (seen->dev[i] == st.dev && seen->ino[i] == st.ino)
			return diag_set(diag, -ELOOP,
					"%s: stands in its own chain of backing and data files",
					store->name);
	assert(seen->n < ARRAY_SIZE(seen->dev));
	seen->dev[seen->n] = st.dev;
	seen->ino[seen->n++] = st.ino;
	return 0;
}

void image_free_names(struct image *img)
{
	free(img->backing_name);
	free(img->backing_format);
	free(img->data_name);
	free(atomic_load(&img->damage));
}

/* Frees one file of the chain, in any state of construction. */
static void image_free(struct image *img)
{
	struct image_core *core = img->core;

	if (core) {
		inflight_done(&core->inflight);
		barrier_done(&core->barrier);
		mutex_done(&core->room_lock);
		unpack_done(&core->unpack);
		rwlock_done(&core->io_lock);
		free(core);
	}
	if (img->data != img->store)
		store_close(img->data);
	store_close(img->store);
	image_free_names(img);
	free(img);
}

static int image_core_new(struct image *img)
{
	struct image_core *core = calloc(1, sizeof(*core));

	if (!core)
		return -ENOMEM;
	rwlock_init(&core->io_lock);
	inflight_init(&core->inflight);
	barrier_init(&core->barrier);
	mutex_init(&core->room_lock);
	unpack_init(&core->unpack, img->unit);
	atomic_init(&core->size, img->size);
	img->core = core;
	return 0;
}

int image_format_named(const char *name, const struct store *store, const struct format **ret,
		       struct diag *diag)
{
	char quoted[128];
	const struct format *f = format_by_name(name);

	if (!f)
		return diag_set(diag, -EMEDIUMTYPE, "%s: no format is called \"%s\"", store->name,
				diag_quote(quoted, sizeof(quoted), name, strlen(name)));
	*ret = f;
	return 0;
}

/* The top image's format: stated, or by magic; raw is assumed only where nothing can be written. */
static int image_format_top(struct store *store, const struct image_options *options,
			    const struct format **ret, struct diag *diag)
{
	struct setting raw;
	int r;

	if (options->format && strcmp(options->format, "auto") != 0)
		return image_format_named(options->format, store, ret, diag);
	r = format_probe(store, ret);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot be read", store->name);
	if (*ret)
		return 0;
	if (!options->read_only)
		return diag_set(diag, -EMEDIUMTYPE,
				"%s: no known image format; if it is a raw disk, say so with %s, "
				"or export it read-only",
				store->name,
				setting_place(&raw, options->settings, "format", "raw"));
	*ret = format_by_name("raw");
	return 0;
}

/* A backing file's format: stated by its overlay, or by magic; never raw by guess. */
static int image_format_backing(const struct image *overlay, struct store *store,
				const struct format **ret, struct diag *diag)
{
	int r;

	if (overlay->backing_format)
		return image_format_named(overlay->backing_format, store, ret, diag);
	r = format_probe(store, ret);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot be read", store->name);
	if (!*ret)
		return diag_set(diag, -EMEDIUMTYPE,
				"%s: no known image format, and %s does not say that it is raw; "
				"state it with: qemu-img rebase -u -F raw -b %s %s",
				store->name, overlay->name, store->name, overlay->name);
	return 0;
}

static int image_open_format(struct image *img, const char *snapshot, struct diag *diag)
{
	int r;

	if (snapshot && !img->format->snapshots)
		return diag_set(diag, -EOPNOTSUPP, "%s: %s images have no internal snapshots",
				img->name, img->format->name);
	img->snapshot = snapshot;
	r = img->format->open(img, diag);
	img->snapshot = NULL;
	return r;
}

/* One file of the chain up to its header. Takes over the store, also on failure. */
static int image_open_file(struct store *store, const struct format *format,
			   const struct image_options *options, struct image **ret,
			   struct diag *diag)
{
	struct image *img = calloc(1, sizeof(*img));
	int r;

	if (!img) {
		store_close(store);
		return diag_errno(diag, -ENOMEM, "image");
	}
	img->store = store;
	img->data = store;
	img->name = store->name;
	img->format = format;
	img->read_only = options->read_only;
	img->table_cache = options->table_cache;
	img->again = options->again;
	img->unit = 1;
	r = image_open_format(img, options->snapshot, diag);
	if (r < 0) {
		image_free(img);
		return r;
	}
	*ret = img;
	return 0;
}

static int image_open_named(struct image *img, const struct image_options *options,
			    enum image_role role, struct store **ret, struct diag *diag)
{
	const char *name = role == IMAGE_ROLE_DATA ? img->data_name : img->backing_name;
	char quoted[256];

	if (!options->opener)
		return diag_set(diag, -EACCES,
				"%s: names a further file, \"%s\", which is not allowed", img->name,
				diag_quote(quoted, sizeof(quoted), name, strlen(name)));
	return options->opener->open(options->opener, img->name, role, name,
				     role == IMAGE_ROLE_DATA && !img->read_only, ret, diag);
}

static int image_open_data(struct image *img, const struct image_options *options,
			   struct image_seen *seen, struct diag *diag)
{
	struct store *store;
	int r;

	if (!img->data_name)
		return 0;
	r = image_open_named(img, options, IMAGE_ROLE_DATA, &store, diag);
	if (r < 0)
		return r;
	img->data = store;
	return image_seen_add(seen, store, diag);
}

static int image_open_backing(struct image *img, const struct image_options *options,
			      struct image_seen *seen, struct diag *diag)
{
	const struct image_options below = {.read_only = true, .table_cache = options->table_cache};
	_cleanup_store_ struct store *store = NULL;
	const struct format *format = NULL;
	int r;

	r = image_open_named(img, options, IMAGE_ROLE_BACKING, &store, diag);
	if (r == 0)
		r = image_seen_add(seen, store, diag);
	if (r == 0)
		r = image_format_backing(img, store, &format, diag);
	if (r < 0)
		return r;
	return image_open_file(TAKE_PTR(store), format, &below, &img->core->backing, diag);
}

/* The rest of the chain below top. */
static int image_open_chain(struct image *top, const struct image_options *options,
			    struct image_seen *seen, struct diag *diag)
{
	unsigned depth = 0;

	for (struct image *img = top; img; img = img->core->backing) {
		int r = image_core_new(img);

		if (r < 0)
			return diag_errno(diag, r, "%s", img->name);
		if (++depth == IMAGE_CHAIN_MAX && img->backing_name)
			return diag_set(diag, -ELOOP,
					"%s: its backing chain is longer than %d files", top->name,
					IMAGE_CHAIN_MAX);
		r = image_open_data(img, options, seen, diag);
		if (r == 0 && img->backing_name)
			r = image_open_backing(img, options, seen, diag);
		if (r < 0)
			return r;
		img->parent_size = img->core->backing ? img->core->backing->size : 0;
		img->discard = options->discard;
	}
	return 0;
}

static int image_start_writing(struct image *img, struct diag *diag)
{
	if (img->read_only)
		return 0;
	if (img->format->read_only)
		return diag_set(diag, -EROFS, "%s: %s images can only be read", img->name,
				img->format->name);
	if (img->store->read_only || img->data->read_only)
		return diag_set(diag, -EROFS, "%s: the host's file is open for reading only",
				img->name);
	return img->format->open_write ? img->format->open_write(img, diag) : 0;
}

/* Drivers first, top to bottom, then the files. */
static void image_free_chain(struct image *img)
{
	while (img) {
		struct image *backing = img->core ? img->core->backing : NULL;

		img->format->close(img);
		image_free(img);
		img = backing;
	}
}

int image_open(struct store *store, const struct image_options *options, struct image **ret,
	       struct diag *diag)
{
	struct image_seen seen = {0};
	const struct format *format = NULL;
	struct image *img = NULL;
	int r;

	if (options->snapshot && !options->read_only)
		r = diag_set(diag, -EROFS, "%s: an internal snapshot can only be read",
			     store->name);
	else
		r = image_seen_add(&seen, store, diag);
	if (r == 0)
		r = image_format_top(store, options, &format, diag);
	if (r < 0) {
		store_close(store);
		return r;
	}
	r = image_open_file(store, format, options, &img, diag);
	if (r < 0)
		return r;
	r = image_open_chain(img, options, &seen, diag);
	if (r == 0)
		r = image_start_writing(img, diag);
	if (r < 0) {
		image_free_chain(img);
		return r;
	}
	*ret = img;
	return 0;
}

int image_close(struct image *img)
{
	int r = 0;

	if (!img)
		return 0;
	if (!img->read_only)
		r = image_flush(img);
	if (!img->read_only && img->format->finish) {
		int r2;

		rwlock_write(&img->core->io_lock);
		r2 = img->format->finish(img);
		rwlock_unwrite(&img->core->io_lock);
		r = r < 0 ? r : r2;
	}
	image_free_chain(img);
	return r;
}

uint64_t image_size(struct image *img)
{
	return atomic_load_explicit(&img->core->size, memory_order_relaxed);
}

struct image *image_backing(struct image *img)
{
	return img->core->backing;
}

const char *image_damage(struct image *img)
{
	for (; img; img = img->core->backing) {
		const char *damage = atomic_load(&img->damage);

		if (damage)
			return damage;
	}
	return NULL;
}
