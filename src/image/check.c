/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Checking one file: the files that it names are not opened, for its tables say nothing of them. */

#include <errno.h>
#include <string.h>

#include "image/core.h"

static int check_format(struct store *store, const char *format, const struct format **ret,
			struct diag *diag)
{
	int r;

	if (format && strcmp(format, "auto") != 0)
		return image_format_named(format, store, ret, diag);
	r = format_probe(store, ret);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot be read", store->name);
	return *ret ? 0
		    : diag_set(diag, -EMEDIUMTYPE,
			       "%s: no known image format, so there is nothing to check",
			       store->name);
}

int image_check(struct store *store, const char *format, struct check *check, struct diag *diag)
{
	struct image img = {
		.store = store, .data = store, .name = store->name, .read_only = true, .unit = 1};
	int r = check_format(store, format, &img.format, diag);

	if (r < 0)
		return r;
	if (!img.format->check)
		return diag_set(diag, -EOPNOTSUPP, "%s: %s images have no tables to check",
				store->name, img.format->name);
	r = img.format->open(&img, diag);
	if (r < 0)
		return r;
	check->format = img.format->name;
	check->unit = img.unit;
	r = img.format->check(&img, check, diag);
	img.format->close(&img);
	image_free_names(&img);
	return r;
}
