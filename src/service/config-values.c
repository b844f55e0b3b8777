/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What may stand behind the "=". */

#include "service/config-key.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "base/parse.h"
#include "base/selector.h"
#include "session/slots.h"

enum {
	CONFIG_FORMAT_MAX = 31,	   /* what struct worker_config takes, without the NUL */
	CONFIG_SNAPSHOT_MAX = 255, /* likewise; QEMU takes no longer names */
	CONFIG_WAIT_MAX = 24 * 60 * 60,
	CONFIG_PARTITION_MAX = 287, /* likewise */
};

/* The values that table_cache allows say the same. Less is too little to work with. */
#define CONFIG_TABLE_CACHE_MIN KIB(256)
#define CONFIG_TABLE_CACHE_MAX GIB(1)

static void *config_field(struct config *c, const struct config_key *k)
{
	return (char *)c + k->offset;
}

int config_set_string(struct config *c, const struct config_key *k, const char *value,
		      struct diag *diag)
{
	char **field = config_field(c, k);
	char *copy;

	if (!*value)
		return -EINVAL;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

int config_set_format(struct config *c, const struct config_key *k, const char *value,
		      struct diag *diag)
{
	size_t n = strlen(value);

	if (n == 0 || n > CONFIG_FORMAT_MAX)
		return -EINVAL;
	/* One of the words that are allowed, which stand with '|' between them */
	for (const char *p = k->values; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
		if (strncmp(p, value, n) == 0 && (p[n] == '|' || p[n] == '\0'))
			return config_set_string(c, k, value, diag);
	return -EINVAL;
}

int config_set_snapshot(struct config *c, const struct config_key *k, const char *value,
			struct diag *diag)
{
	if (strlen(value) > CONFIG_SNAPSHOT_MAX)
		return -EINVAL;
	return config_set_string(c, k, value, diag);
}

int config_set_bool(struct config *c, const struct config_key *k, const char *value,
		    struct diag *diag)
{
	return parse_bool(value, config_field(c, k));
}

int config_set_discard(struct config *c, const struct config_key *k, const char *value,
		       struct diag *diag)
{
	if (strcasecmp(value, "unmap") != 0 && strcasecmp(value, "ignore") != 0)
		return -EINVAL;
	c->discard = strcasecmp(value, "unmap") == 0;
	return 0;
}

int config_set_cache(struct config *c, const struct config_key *k, const char *value,
		     struct diag *diag)
{
	if (strcasecmp(value, "auto") != 0 && strcasecmp(value, "none") != 0)
		return -EINVAL;
	c->cache = strcasecmp(value, "none") == 0 ? CONFIG_CACHE_NONE : CONFIG_CACHE_AUTO;
	return 0;
}

int config_set_tristate(struct config *c, const struct config_key *k, const char *value,
			struct diag *diag)
{
	enum config_tristate *field = config_field(c, k);
	bool yes;

	if (strcasecmp(value, "auto") == 0) {
		*field = CONFIG_AUTO;
		return 0;
	}
	if (parse_bool(value, &yes) < 0)
		return -EINVAL;
	*field = yes ? CONFIG_YES : CONFIG_NO;
	return 0;
}

int config_set_threads(struct config *c, const struct config_key *k, const char *value,
		       struct diag *diag)
{
	uint64_t n;
	int r;

	if (strcasecmp(value, "auto") == 0) {
		c->threads = 0;
		return 0;
	}
	r = parse_u64(value, SLOTS_MAX, &n);
	if (r < 0)
		return r;
	if (n == 0)
		return -ERANGE;
	c->threads = (unsigned)n;
	return 0;
}

int config_set_table_cache(struct config *c, const struct config_key *k, const char *value,
			   struct diag *diag)
{
	uint64_t bytes;
	int r;

	if (strcasecmp(value, "auto") == 0) {
		c->table_cache = 0;
		return 0;
	}
	r = parse_size(value, &bytes);
	if (r < 0)
		return r;
	if (bytes < CONFIG_TABLE_CACHE_MIN || bytes > CONFIG_TABLE_CACHE_MAX)
		return -ERANGE;
	c->table_cache = bytes;
	return 0;
}

int config_set_owner(struct config *c, const struct config_key *k, const char *value,
		     struct diag *diag)
{
	const struct passwd *user;
	uint64_t id;

	/* (uid_t)-1 means "no change" to the kernel and is nobody's number */
	if (isdigit((unsigned char)*value) && parse_u64(value, UINT32_MAX - 1, &id) == 0) {
		c->owner = (uid_t)id;
	} else {
		user = getpwnam(value);
		if (!user)
			return diag_set(diag, -EINVAL, "there is no user of this name");
		c->owner = user->pw_uid;
	}
	c->has_owner = true;
	return 0;
}

int config_set_group(struct config *c, const struct config_key *k, const char *value,
		     struct diag *diag)
{
	const struct group *group;
	uint64_t id;

	if (isdigit((unsigned char)*value) && parse_u64(value, UINT32_MAX - 1, &id) == 0) {
		c->group = (gid_t)id;
	} else {
		group = getgrnam(value);
		if (!group)
			return diag_set(diag, -EINVAL, "there is no group of this name");
		c->group = group->gr_gid;
	}
	c->has_group = true;
	return 0;
}

int config_set_mode(struct config *c, const struct config_key *k, const char *value,
		    struct diag *diag)
{
	unsigned mode;
	int r = parse_mode(value, &mode);

	if (r < 0)
		return r;
	if (mode > 0777) /* set-uid on a disk means nothing good */
		return -ERANGE;
	c->mode = mode;
	c->has_mode = true;
	return 0;
}

int config_set_backing(struct config *c, const struct config_key *k, const char *value,
		       struct diag *diag)
{
	struct locate_policy policy;
	int r = locate_policy_parse(value, &policy, diag);

	if (r < 0)
		return r;
	locate_policy_done(&c->backing);
	c->backing = policy;
	return 0;
}

int config_set_seconds(struct config *c, const struct config_key *k, const char *value,
		       struct diag *diag)
{
	unsigned *field = config_field(c, k);
	uint64_t n;
	int r = parse_u64(value, CONFIG_WAIT_MAX, &n);

	if (r < 0)
		return r;
	*field = (unsigned)n;
	return 0;
}

int config_set_span(struct config *c, const struct config_key *k, const char *value,
		    struct diag *diag)
{
	return parse_span(value, config_field(c, k));
}

int config_set_partition(struct config *c, const struct config_key *k, const char *value,
			 struct diag *diag)
{
	struct selector selector;

	if (strlen(value) > CONFIG_PARTITION_MAX || selector_parse(value, &selector) < 0)
		return -EINVAL;
	return config_set_string(c, k, value, diag);
}

/* What stands in one field of a unit or of /etc/fstab. */
int config_set_word(struct config *c, const struct config_key *k, const char *value,
		    struct diag *diag)
{
	for (const char *p = value; *p; p++)
		if (isspace((unsigned char)*p) || iscntrl((unsigned char)*p))
			return diag_set(diag, -EINVAL, "there must be no blanks in it");
	return config_set_string(c, k, value, diag);
}

/* A path as systemd names a mount unit by it: absolute, nothing in it twice, no way back. */
int config_set_mount(struct config *c, const struct config_key *k, const char *value,
		     struct diag *diag)
{
	size_t n = strlen(value);

	for (const char *p = value; *p; p++)
		if (iscntrl((unsigned char)*p))
			return diag_set(diag, -EINVAL, "there must be no control characters in it");
	if (value[0] != '/')
		return diag_set(diag, -EINVAL, "must be an absolute path, beginning with /");
	if (strspn(value, "/") == n)
		return diag_set(diag, -EINVAL, "the root directory is taken");
	for (const char *p = value; p; p = strchr(p + 1, '/')) {
		size_t len = strcspn(p + 1, "/");

		if ((len == 0 && p + 1 != value + n) || (len == 1 && p[1] == '.') ||
		    (len == 2 && p[1] == '.' && p[2] == '.'))
			return diag_set(diag, -EINVAL, "must be written without //, . and ..");
	}
	return config_set_string(c, k, value, diag);
}
