/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include <inttypes.h>

#include "cli/opener.h"
#include "cli/output.h"

/* Extents are printed as they are found: a map may be longer than memory. */

static void map_text(const struct image_extent *e)
{
	const char *kind = e->zero     ? (e->present ? "zero" : "absent")
			   : e->packed ? "compressed"
				       : "data";

	printf("0x%-14" PRIx64 " 0x%-14" PRIx64 " %-11s %5u", e->off, e->len, kind, e->depth);
	if (e->mapped) {
		printf("  0x%-14" PRIx64 " ", e->host_off);
		output_name(e->store->name);
	}
	putchar('\n');
}

/* The keys of qemu-img map, and the file. */
static void map_json(const struct image_extent *e)
{
	_cleanup_json_ struct json_object *o = json_object_new_object();

	output_json_add(o, "start", json_object_new_uint64(e->off));
	output_json_add(o, "length", json_object_new_uint64(e->len));
	output_json_add(o, "depth", json_object_new_uint64(e->depth));
	output_json_add(o, "present", json_object_new_boolean(e->present));
	output_json_add(o, "zero", json_object_new_boolean(e->zero));
	output_json_add(o, "data", json_object_new_boolean(!e->zero));
	output_json_add(o, "compressed", json_object_new_boolean(e->packed));
	if (e->mapped) {
		output_json_add(o, "offset", json_object_new_uint64(e->host_off));
		output_json_add(o, "file", output_json_string(e->store->name));
	}
	fputs(json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE |
							JSON_C_TO_STRING_SPACED),
	      stdout);
}

static int map_failed(struct image *img, uint64_t off, int error, struct diag *diag)
{
	const char *damage = image_damage(img);

	if (damage)
		return diag_set(diag, error, "%s", damage);
	return diag_errno(diag, error, "%s: cannot be mapped at offset %" PRIu64, img->name, off);
}

static int map_print(struct image *img, bool json, struct diag *diag)
{
	struct image_extent e;

	for (uint64_t off = 0, size = image_size(img); off < size; off += e.len) {
		int r = image_map(img, off, size - off, &e);

		if (r < 0)
			return map_failed(img, off, r, diag);
		if (ferror(stdout))
			return output_finish(diag);
		if (!json) {
			map_text(&e);
			continue;
		}
		fputs(off ? ",\n " : "", stdout);
		map_json(&e);
	}
	return 0;
}

int verb_map(struct command *c, struct diag *diag)
{
	_cleanup_image_ struct image *img = NULL;
	int r = opener_open_image(c->words[0], &c->config, &img, diag);

	if (r < 0)
		return r;
	if (c->json)
		putchar('[');
	else
		printf("%-16s %-16s %-11s %5s  %-16s %s\n", "Offset", "Length", "Kind", "Depth",
		       "Host offset", "File");
	r = map_print(img, c->json, diag);
	if (r == 0 && c->json) /* a list that was cut off must not look whole */
		puts("]");
	return r;
}
