/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/parse.h"
#include "cli/opener.h"
#include "cli/output.h"
#include "cli/partitions.h"

/* Said already, with the unit. */
static const char info_redundant[] = "cluster_size";

/* What there is to say of one file of a chain. */
struct info {
	struct image *img;
	struct store_stat st;
	struct format_info features;
};

/* What an image lists: who shows it, and what could not be read. */
struct info_lists {
	format_snapshot_fn *snapshot;
	format_bitmap_fn *bitmap;
	void *snapshots, *bitmaps; /* for them */
	struct diag errors[2];
	size_t n_errors;
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

static void info_text_name(const char *label, const char *name)
{
	if (!name)
		return;
	output_label(label);
	output_name(name);
	putchar('\n');
}

static void info_text_size(const char *label, uint64_t bytes)
{
	output_label(label);
	output_size(bytes);
	putchar('\n');
}

static void info_text_quoted(const char *name)
{
	putchar('"');
	output_name(name);
	putchar('"');
}

/* As local time, like qemu-img. */
static void info_text_date(time_t when)
{
	char text[64] = "";
	struct tm tm;

	if (localtime_r(&when, &tm))
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	fputs(text, stdout);
}

static int info_text_snapshot(void *data, const struct format_snapshot *s)
{
	output_label("snapshot");
	output_name(s->id);
	putchar(' ');
	info_text_quoted(s->name);
	fputs(", ", stdout);
	info_text_date(s->date_sec);
	if (s->has_size) {
		fputs(", ", stdout);
		output_size(s->size);
	}
	if (s->vm_state_size > 0) {
		fputs(", and of the running machine ", stdout);
		output_size(s->vm_state_size);
	}
	putchar('\n');
	return ferror(stdout) ? -EIO : 0;
}

static int info_text_bitmap(void *data, const struct format_bitmap *b)
{
	output_label("bitmap");
	info_text_quoted(b->name);
	fputs(", granularity ", stdout);
	output_size(b->granularity);
	fputs(b->automatic ? ", follows every write" : "", stdout);
	fputs(b->in_use ? ", in use: not valid" : "", stdout);
	putchar('\n');
	return ferror(stdout) ? -EIO : 0;
}

/* Shows what the image lists. A list that is damaged does not keep the rest from being shown. */
static void info_lists(struct image *img, struct info_lists *lists)
{
	struct diag *d = lists->errors;

	if (img->format->snapshots &&
	    img->format->snapshots(img, lists->snapshot, lists->snapshots, d) < 0 && d->text[0])
		d++;
	if (img->format->bitmaps &&
	    img->format->bitmaps(img, lists->bitmap, lists->bitmaps, d) < 0 && d->text[0])
		d++;
	lists->n_errors = (size_t)(d - lists->errors);
}

/* The first of them is what the command ends with. */
static void info_note_errors(const struct info_lists *lists, struct diag *diag)
{
	if (lists->n_errors > 0 && diag->error == 0)
		*diag = lists->errors[0];
}

static void info_text_lists(struct image *img, struct diag *diag)
{
	struct info_lists lists = {.snapshot = info_text_snapshot, .bitmap = info_text_bitmap};

	info_lists(img, &lists);
	for (size_t i = 0; i < lists.n_errors; i++) {
		output_label("error");
		puts(lists.errors[i].text);
	}
	info_note_errors(&lists, diag);
}

static void info_text(const struct info *i)
{
	const struct image *img = i->img;

	output_name(img->name);
	putchar('\n');
	output_label("format");
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

static int info_json_snapshot(void *data, const struct format_snapshot *s)
{
	struct json_object *o = json_object_new_object(), *list = data;

	output_json_add(o, "id", output_json_string(s->id));
	output_json_add(o, "name", output_json_string(s->name));
	output_json_add(o, "date-sec", json_object_new_uint64(s->date_sec));
	output_json_add(o, "date-nsec", json_object_new_uint64(s->date_nsec));
	output_json_add(o, "vm-clock-sec", json_object_new_uint64(s->vm_clock_nsec / 1000000000));
	output_json_add(o, "vm-clock-nsec", json_object_new_uint64(s->vm_clock_nsec % 1000000000));
	output_json_add(o, "vm-state-size", json_object_new_uint64(s->vm_state_size));
	if (s->has_size)
		output_json_add(o, "disk-size", json_object_new_uint64(s->size));
	json_object_array_add(list, o);
	return 0;
}

static int info_json_bitmap(void *data, const struct format_bitmap *b)
{
	struct json_object *o = json_object_new_object(), *flags = json_object_new_array();
	struct json_object *list = data;

	if (b->in_use)
		json_object_array_add(flags, output_json_string("in-use"));
	if (b->automatic)
		json_object_array_add(flags, output_json_string("auto"));
	output_json_add(o, "name", output_json_string(b->name));
	output_json_add(o, "granularity", json_object_new_uint64(b->granularity));
	output_json_add(o, "flags", flags);
	json_object_array_add(list, o);
	return 0;
}

static void info_json_lists(struct json_object *o, struct image *img, struct diag *diag)
{
	struct json_object *errors = json_object_new_array();
	struct info_lists lists = {
		.snapshot = info_json_snapshot,
		.bitmap = info_json_bitmap,
		.snapshots = json_object_new_array(),
		.bitmaps = json_object_new_array(),
	};

	output_json_add(o, "snapshots", lists.snapshots);
	output_json_add(o, "bitmaps", lists.bitmaps);
	output_json_add(o, "errors", errors);
	info_lists(img, &lists);
	for (size_t i = 0; i < lists.n_errors; i++)
		json_object_array_add(errors, output_json_string(lists.errors[i].text));
	info_note_errors(&lists, diag);
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

static int info_json_file(struct image *img, struct json_object **ret, struct diag *diag)
{
	struct info info;
	int r = info_collect(img, &info, diag);

	if (r < 0)
		return r;
	*ret = info_json(&info);
	info_json_lists(*ret, img, diag);
	return 0;
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
		info_text_lists(img, diag);
		if (first)
			partitions_text(img);
	}
	return diag->error;
}

/* The image, with the files below it as an array, the nearest first. */
static int info_print_chain_json(struct image *img, struct diag *diag)
{
	_cleanup_json_ struct json_object *top = NULL;
	struct json_object *chain;
	int r = info_json_file(img, &top, diag);

	if (r < 0)
		return r;
	output_json_add(top, "partition-table", partitions_json(img));
	chain = json_object_new_array();
	output_json_add(top, "backing", chain);
	while ((img = image_backing(img))) {
		struct json_object *below;

		r = info_json_file(img, &below, diag);
		if (r < 0)
			return r;
		json_object_array_add(chain, below);
	}
	output_json(top, true);
	return diag->error;
}

int verb_info(struct command *c, struct diag *diag)
{
	_cleanup_image_ struct image *img = NULL;
	int r = opener_open_image(c->words[0], &c->config, &img, diag);

	if (r < 0)
		return r;
	*diag = (struct diag){0};
	return c->json ? info_print_chain_json(img, diag) : info_print_chain_text(img, diag);
}
