/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/partitions.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/output.h"
#include "image/partition.h"
#include "image/superblock.h"

/* 'key="value"', as findfs(8) and fstab(5) take it. */
static void partitions_text_tag(const char *key, const char *value)
{
	if (!*value)
		return;
	printf(", %s=\"", key);
	output_name(value);
	putchar('"');
}

/* What is on it, where it is a window onto the disk and can be read; else nothing. */
static struct superblock partitions_superblock(struct image *img, const struct partition *p)
{
	struct superblock sb = {0};

	if (p->flaw == PARTITION_GOOD)
		superblock_read(img, p->off, p->len, &sb);
	return sb;
}

static void partitions_text_entry(struct image *img, const struct partition *p)
{
	const struct superblock sb = partitions_superblock(img, p);
	char label[32], buf[64];
	const char *flaw = partition_flaw_text(p, buf, sizeof(buf));

	snprintf(label, sizeof(label), "part%u", p->number);
	output_label(label);
	output_size(p->len);
	printf(" from byte %" PRIu64 ", type %s", p->off, p->type);
	partitions_text_tag("PARTUUID", p->uuid);
	partitions_text_tag("PARTLABEL", p->name);
	if (sb.type[0])
		printf(", holds %s", sb.type);
	partitions_text_tag("UUID", sb.uuid);
	partitions_text_tag("LABEL", sb.label);
	if (flaw)
		printf("; not shown: %s", flaw);
	putchar('\n');
}

void partitions_text(struct image *img)
{
	_cleanup_free_ struct partition_table *t = NULL;
	struct diag diag = {0};

	if (partition_read(img, &t, &diag) < 0) {
		output_label("partition table");
		output_name(diag.text);
		putchar('\n');
		return;
	}
	if (!t->kind)
		return;
	output_label("partition table");
	printf("%s%s%s, sectors of %u bytes%s\n", t->kind, t->id[0] ? " " : "", t->id, t->sector,
	       t->backup ? ", the backup at the end of the disk" : "");
	for (unsigned i = 0; i < t->n; i++)
		partitions_text_entry(img, &t->entries[i]);
	if (t->more) {
		output_label("more partitions");
		printf("%u; not shown: %d are the limit\n", t->more, PARTITIONS_MAX);
	}
}

static struct json_object *partitions_json_entry(struct image *img, const struct partition *p)
{
	const struct superblock sb = partitions_superblock(img, p);
	struct json_object *o = json_object_new_object();
	char buf[64];
	const char *flaw = partition_flaw_text(p, buf, sizeof(buf));

	output_json_add(o, "number", json_object_new_int((int)p->number));
	output_json_add(o, "start", json_object_new_uint64(p->off));
	output_json_add(o, "size", json_object_new_uint64(p->len));
	output_json_add(o, "type", output_json_string(p->type));
	output_json_add(o, "partuuid", output_json_string(p->uuid));
	output_json_add(o, "partlabel", output_json_string(p->name));
	output_json_add(o, "attributes", json_object_new_uint64(p->attributes));
	output_json_add(o, "fstype", output_json_string(sb.type));
	output_json_add(o, "uuid", output_json_string(sb.uuid));
	output_json_add(o, "label", output_json_string(sb.label));
	if (flaw)
		output_json_add(o, "not-shown", output_json_string(flaw));
	return o;
}

struct json_object *partitions_json(struct image *img)
{
	struct json_object *o, *list;
	_cleanup_free_ struct partition_table *t = NULL;
	struct diag diag = {0};
	int r = partition_read(img, &t, &diag);

	if (r == 0 && !t->kind)
		return NULL;
	o = json_object_new_object();
	if (r < 0) {
		output_json_add(o, "error", output_json_string(diag.text));
		return o;
	}
	list = json_object_new_array();
	output_json_add(o, "label", output_json_string(t->kind));
	output_json_add(o, "id", output_json_string(t->id));
	output_json_add(o, "sector-size", json_object_new_int((int)t->sector));
	output_json_add(o, "backup", json_object_new_boolean(t->backup));
	output_json_add(o, "partitions", list);
	for (unsigned i = 0; i < t->n; i++)
		json_object_array_add(list, partitions_json_entry(img, &t->entries[i]));
	output_json_add(o, "left-out", json_object_new_int((int)t->more));
	return o;
}
