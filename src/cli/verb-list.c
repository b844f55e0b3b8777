/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include "base/parse.h"
#include "cli/output.h"
#include "service/registry.h"

static void list_text(const struct registry_entry *e)
{
	char size[32];

	printf("%-9s %-10s %-4s %8d  ", e->format, format_size(size, sizeof(size), e->size),
	       e->read_only ? "ro" : "rw", (int)e->pid);
	output_name(e->target);
	fputs("  ", stdout);
	output_name(e->image);
	if (e->snapshot) {
		fputs(" (snapshot ", stdout);
		output_name(e->snapshot);
		putchar(')');
	}
	putchar('\n');
}

static struct json_object *list_json(const struct registry_entry *e)
{
	struct json_object *o = json_object_new_object();

	output_json_add(o, "target", output_json_string(e->target));
	output_json_add(o, "image", output_json_string(e->image));
	output_json_add(o, "format", output_json_string(e->format));
	output_json_add(o, "snapshot", output_json_string(e->snapshot));
	output_json_add(o, "service", output_json_string(e->name));
	output_json_add(o, "virtual-size", json_object_new_uint64(e->size));
	output_json_add(o, "read-only", json_object_new_boolean(e->read_only));
	output_json_add(o, "pid", json_object_new_int(e->pid));
	return o;
}

int verb_list(struct command *c, struct diag *diag)
{
	_cleanup_json_ struct json_object *array = json_object_new_array();
	struct registry_entry *entries = NULL;
	size_t n = 0;
	int r = registry_list(&entries, &n, diag);

	if (r < 0)
		return r;
	if (n && !c->json)
		printf("%-9s %-10s %-4s %8s  %s  %s\n", "FORMAT", "SIZE", "MODE", "PID", "TARGET",
		       "IMAGE");
	for (size_t i = 0; i < n; i++) {
		if (c->json)
			json_object_array_add(array, list_json(&entries[i]));
		else
			list_text(&entries[i]);
		registry_entry_done(&entries[i]);
	}
	free(entries);
	if (c->json)
		output_json(array, true);
	return 0;
}
