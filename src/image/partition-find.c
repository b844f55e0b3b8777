/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/partition-find.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "image/superblock.h"

/* Discoverable Partitions Specification, "Partition Flags" */
static const uint64_t partition_no_auto = UINT64_C(1) << 63;

/* 1: it is the one; 0: it is not; or an error of reading. */
static int partition_fits_superblock(struct image *img, const struct partition *p,
				     const struct selector *s)
{
	struct superblock sb;
	int r = superblock_read(img, p->off, p->len, &sb);

	if (r < 0)
		return r;
	if (s->kind == SELECTOR_UUID)
		return strcasecmp(sb.uuid, s->value) == 0;
	return strcmp(sb.label, s->value) == 0;
}

static int partition_fits(struct image *img, const struct partition *p, const struct selector *s)
{
	switch (s->kind) {
	case SELECTOR_NUMBER:
		return p->number == s->number;
	case SELECTOR_PARTLABEL:
		return strcmp(p->name, s->value) == 0;
	case SELECTOR_PARTUUID:
		return strcasecmp(p->uuid, s->value) == 0;
	case SELECTOR_TYPE:
		return strcasecmp(p->type, s->value) == 0 && !(p->attributes & partition_no_auto);
	case SELECTOR_LABEL:
	case SELECTOR_UUID:
		return partition_fits_superblock(img, p, s);
	}
	return 0;
}

static const char *partition_what(const struct selector *s, char *buf, size_t size)
{
	static const char *const tags[] = {
		[SELECTOR_LABEL] = "LABEL",	    [SELECTOR_UUID] = "UUID",
		[SELECTOR_PARTLABEL] = "PARTLABEL", [SELECTOR_PARTUUID] = "PARTUUID",
		[SELECTOR_TYPE] = "TYPE",
	};
	char quoted[2 * SELECTOR_MAX];

	if (s->kind == SELECTOR_NUMBER)
		snprintf(buf, size, "number %u", s->number);
	else
		snprintf(buf, size, "%s=%s", tags[s->kind],
			 diag_quote(quoted, sizeof(quoted), s->value, strlen(s->value)));
	return buf;
}

int partition_find(struct image *img, const struct partition_table *table,
		   const struct selector *selector, unsigned *ret, struct diag *diag)
{
	char what[3 * SELECTOR_MAX];
	unsigned found = 0;

	partition_what(selector, what, sizeof(what));
	for (unsigned i = 0; i < table->n; i++) {
		const struct partition *p = &table->entries[i];
		int r = p->flaw == PARTITION_GOOD ? partition_fits(img, p, selector) : 0;

		if (r < 0)
			return diag_errno(diag, r, "part%u cannot be examined", p->number);
		if (r > 0 && found)
			return diag_set(diag, -ENOTUNIQ,
					"part%u and part%u are both the partition with %s: say "
					"which by its number",
					found, p->number, what);
		if (r > 0)
			found = p->number;
		if (r > 0 && selector->kind == SELECTOR_TYPE)
			break;
	}
	if (!found)
		return diag_set(diag, -ENOENT,
				"there is no partition with %s (fuseimg info lists them)", what);
	*ret = found;
	return 0;
}
