/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "fuse/nodes.h"
#include "fuse/windows.h"

/*
 * One "key: value" per line. Numbers have a fixed width, so that the text keeps its length: a
 * reader who takes it in pieces finds no line twice and none cut.
 */

static size_t status_line(char *buf, size_t size, const char *key, const char *value)
{
	int n = snprintf(buf, size, "%s: %s\n", key, value);

	return min_u64((uint64_t)n, size - 1);
}

static size_t status_number(char *buf, size_t size, const char *key, uint64_t value)
{
	int n = snprintf(buf, size, "%s: %20" PRIu64 "\n", key, value);

	return min_u64((uint64_t)n, size - 1);
}

size_t status_text(struct share *share, char *buf, size_t size)
{
	char name[STATUS_MAX / 2];
	struct store_stat st = {};
	struct slots_sum sum;
	size_t len = 0;

	slots_sum(&share->slots, &sum);
	(void)image_stat(share->image, &st);
	diag_quote(name, sizeof(name), share->image->name, strlen(share->image->name));

	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {
		{"size", image_size(share->image)},
		{"allocated", st.allocated},
		{"partitions", windows_count(share)},
		{"threads", share->slots.n},
		{"reads", sum.reads},
		{"read_bytes", sum.read_bytes},
		{"writes", sum.writes},
		{"write_bytes", sum.write_bytes},
		{"flushes", sum.flushes},
		{"discards", sum.discards},
		{"other_requests", sum.others},
		{"errors", sum.errors},
	};

	len += status_line(buf + len, size - len, "image", name);
	len += status_line(buf + len, size - len, "format", share->image->format->name);
	len += status_line(buf + len, size - len, "read_only", share->read_only ? "yes" : "no");
	if (*share->config.snapshot) {
		diag_quote(name, sizeof(name), share->config.snapshot,
			   strlen(share->config.snapshot));
		len += status_line(buf + len, size - len, "snapshot", name);
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		len += status_number(buf + len, size - len, numbers[i].key, numbers[i].value);
	return len;
}
