/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include <errno.h>
#include <string.h>

#include "base/parse.h"
#include "cli/opener.h"
#include "cli/output.h"

/* Said already, with the unit. */
static const char info_redundant[] = "cluster_size";

/* What there is to say of one file of a chain. */
struct info {
	struct image *img;
	struct store_stat st;
	struct format_info features;
};

static int info_collect(struct image *img, struct info *ret, struct diag *diag)
{
	int r;

	*ret = (struct info){.img = img};
	r = image_stat(img, &ret->st);
	if (r < 0)
		return diag_errno(diag, r, "%s: cannot be examined", img->name);
	if (img->format->info)
		img->format->info(img, &ret->features);
	return 0;
}

/* "snapshots" from "snapshots", "refcount bits" from "refcount_bits" */
static void info_label(const char *key)
{
	char text[32];

	snprintf(text, sizeof(text), "%s:", key);
	for (char *p = text; *p; p++)
		if (*p == '_' || *p == '-')
			*p = ' ';
	printf("  %-18s ", text);
}

static void info_text_name(const char *label, const char *name)
{
	if (!name)
		return;
	info_label(label);
	output_name(name);
	putchar('\n');
}

static void info_text_size(const char *label, uint64_t bytes)
{
	info_label(label);
	output_size(bytes);
	putchar('\n');
}

static void info_text(const struct info *i)
{
	const struct image *img = i->img;

	output_name(img->name);
	putchar('\n');
	info_label("format");
	printf("%s (%s)\n", img->format->name, img->format->description);
	info_text_size("size", img->size);
	info_text_size("allocated", i->st.allocated);
	if (img->unit > 1)
		info_text_size("cluster", img->unit);
	info_text_name("backing file", img->backing_name);
	info_text_name("backing format", img->backing_format);
	info_text_name("data file", img->data_name);
	for (size_t f = 0; f < i->features.n; f++)
		if (strcmp(i->features.items[f].key, info_redundant) != 0)
			info_text_name(i->features.items[f].key, i->features.items[f].value);
}

/* Drivers give text; what is a number or a truth value in it is one in JSON. */
static struct json_object *info_json_value(const char *value)
{
	uint64_t number;
	bool truth;

	if (parse_u64(value, INT64_MAX, &number) == 0)
		return json_object_new_uint64(number);
	if ((strcmp(value, "yes") == 0 || strcmp(value, "no") == 0) &&
	    parse_bool(value, &truth) == 0)
		return json_object_new_boolean(truth);
	return output_json_string(value);
}

static struct json_object *info_json_features(const struct format_info *features)
{
	struct json_object *o = json_object_new_object();

	for (size_t i = 0; i < features->n; i++)
		if (strcmp(features->items[i].key, info_redundant) != 0)
			output_json_add(o, features->items[i].key,
					info_json_value(features->items[i].value));
	return o;
}

/* Names as in qemu-img info where the meaning is the same. */
static struct json_object *info_json(const struct info *i)
{
	struct json_object *o = json_object_new_object();
	const struct image *img = i->img;

	output_json_add(o, "filename", output_json_string(img->name));
	output_json_add(o, "format", output_json_string(img->format->name));
	output_json_add(o, "virtual-size", json_object_new_uint64(img->size));
	output_json_add(o, "actual-size", json_object_new_uint64(i->st.allocated));
	if (img->unit > 1)
		output_json_add(o, "cluster-size", json_object_new_uint64(img->unit));
	if (img->backing_name)
		output_json_add(o, "backing-filename", output_json_string(img->backing_name));
	if (img->backing_format)
		output_json_add(o, "backing-filename-format",
				output_json_string(img->backing_format));
	if (img->data_name)
		output_json_add(o, "data-filename", output_json_string(img->data_name));
	output_json_add(o, "features", info_json_features(&i->features));
	return o;
}

static int info_print_chain_text(struct image *img, struct diag *diag)
{
	struct info info;

	for (bool first = true; img; img = image_backing(img), first = false) {
		int r = info_collect(img, &info, diag);

		if (r < 0)
			return r;
		if (!first)
			fputs("\nbacked by ", stdout);
		info_text(&info);
	}
	return 0;
}

/* The image, with the files below it as an array, the nearest first. */
static int info_print_chain_json(struct image *img, struct diag *diag)
{
	_cleanup_json_ struct json_object *top = NULL;
	struct json_object *chain;
	struct info info;
	int r = info_collect(img, &info, diag);

	if (r < 0)
		return r;
	top = info_json(&info);
	chain = json_object_new_array();
	output_json_add(top, "backing", chain);
	while ((img = image_backing(img))) {
		r = info_collect(img, &info, diag);
		if (r < 0)
			return r;
		json_object_array_add(chain, info_json(&info));
	}
	output_json(top, true);
	return 0;
}

int verb_info(struct command *c, struct diag *diag)
{
	_cleanup_image_ struct image *img = NULL;
	int r = opener_open_image(c->words[0], &c->config, &img, diag);

	if (r < 0)
		return r;
	return c->json ? info_print_chain_json(img, diag) : info_print_chain_text(img, diag);
}
