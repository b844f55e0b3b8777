/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/state-config.h"

#include <string.h>

#include "base/checked.h"

static const char *state_config_backing(const struct locate_policy *p)
{
	switch (p->backing) {
	case LOCATE_NONE:
		return "none";
	case LOCATE_LISTED:
		return p->dirs;
	case LOCATE_SAME_DIRECTORY:
		break;
	}
	return "directory";
}

static void state_config_write_flags(const struct config *c, state_put_fn put, void *data)
{
	const struct {
		const char *key;
		bool value;
	} flags[] = {
		{"config.read_only", c->read_only},
		{"config.growable", c->growable},
		{"config.direct_io", c->direct_io},
		{"config.lock", c->lock},
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		put(data, flags[i].key, "%s", flags[i].value ? "yes" : "no");
}

void state_config_write(const struct config *c, state_put_fn put, void *data)
{
	static const char *const tristate[] = {
		[CONFIG_AUTO] = "auto", [CONFIG_NO] = "no", [CONFIG_YES] = "yes"};

	put(data, "config.image", "%s", c->image);
	put(data, "config.format", "%s", c->format);
	if (c->snapshot)
		put(data, "config.snapshot", "%s", c->snapshot);
	state_config_write_flags(c, put, data);
	put(data, "config.discard", "%s", c->discard ? "unmap" : "ignore");
	put(data, "config.cache", "%s", c->cache == CONFIG_CACHE_AUTO ? "auto" : "none");
	put(data, "config.allow_other", "%s", tristate[c->allow_other]);
	if (c->boot.partition)
		put(data, "config.partition", "%s", c->boot.partition);
	put(data, "config.partitions", "%s", tristate[c->partitions]);
	if (c->threads)
		put(data, "config.threads", "%u", c->threads);
	if (c->has_owner)
		put(data, "config.owner", "%u", c->owner);
	if (c->has_group)
		put(data, "config.group", "%u", c->group);
	if (c->has_mode)
		put(data, "config.mode", "%o", c->mode);
	if (c->table_cache)
		put(data, "config.table_cache", "%llu", (unsigned long long)c->table_cache);
	put(data, "config.lock_wait", "%u", c->lock_wait);
	put(data, "config.backing", "%s", state_config_backing(&c->backing));
}

int state_config_take(struct config *c, const char *key, const char *value, struct diag *diag)
{
	return config_set(c, key + strlen(STATE_CONFIG_PREFIX), value, diag);
}
