/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "session/slots.h"

enum {
	CONFIG_KEY_MAX = 32,
	CONFIG_FORMAT_MAX = 31,	   /* what struct worker_config takes, without the NUL */
	CONFIG_SNAPSHOT_MAX = 255, /* likewise; QEMU takes no longer names */
};

/* The values that table_cache allows say the same. Less is too little to work with. */
#define CONFIG_TABLE_CACHE_MIN KIB(256)
#define CONFIG_TABLE_CACHE_MAX GIB(1)

/* One row of the table. set() answers -EINVAL or -ERANGE for a value that is not one of `values`,
 * and fills diag itself only where it knows more than that. */
struct config_key {
	const char *key;
	int (*set)(struct config *c, const struct config_key *k, const char *value,
		   struct diag *diag);
	size_t offset; /* of the field in struct config */
	bool flag;     /* the key alone means yes */
	const char *values;
	const char *help;
};

static void *config_field(struct config *c, const struct config_key *k)
{
	return (char *)c + k->offset;
}

static int config_set_string(struct config *c, const struct config_key *k, const char *value,
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

static int config_set_format(struct config *c, const struct config_key *k, const char *value,
			     struct diag *diag)
{
	if (strlen(value) > CONFIG_FORMAT_MAX)
		return -EINVAL;
	return config_set_string(c, k, value, diag);
}

static int config_set_snapshot(struct config *c, const struct config_key *k, const char *value,
			       struct diag *diag)
{
	if (strlen(value) > CONFIG_SNAPSHOT_MAX)
		return -EINVAL;
	return config_set_string(c, k, value, diag);
}

static int config_set_bool(struct config *c, const struct config_key *k, const char *value,
			   struct diag *diag)
{
	return parse_bool(value, config_field(c, k));
}

static int config_set_discard(struct config *c, const struct config_key *k, const char *value,
			      struct diag *diag)
{
	if (strcasecmp(value, "unmap") != 0 && strcasecmp(value, "ignore") != 0)
		return -EINVAL;
	c->discard = strcasecmp(value, "unmap") == 0;
	return 0;
}

static int config_set_cache(struct config *c, const struct config_key *k, const char *value,
			    struct diag *diag)
{
	if (strcasecmp(value, "auto") != 0 && strcasecmp(value, "none") != 0)
		return -EINVAL;
	c->cache = strcasecmp(value, "none") == 0 ? CONFIG_CACHE_NONE : CONFIG_CACHE_AUTO;
	return 0;
}

static int config_set_tristate(struct config *c, const struct config_key *k, const char *value,
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

static int config_set_threads(struct config *c, const struct config_key *k, const char *value,
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

static int config_set_table_cache(struct config *c, const struct config_key *k, const char *value,
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

static int config_set_owner(struct config *c, const struct config_key *k, const char *value,
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
			return diag_set(diag, -EINVAL, "owner=%s: there is no user of this name",
					value);
		c->owner = user->pw_uid;
	}
	c->has_owner = true;
	return 0;
}

static int config_set_group(struct config *c, const struct config_key *k, const char *value,
			    struct diag *diag)
{
	const struct group *group;
	uint64_t id;

	if (isdigit((unsigned char)*value) && parse_u64(value, UINT32_MAX - 1, &id) == 0) {
		c->group = (gid_t)id;
	} else {
		group = getgrnam(value);
		if (!group)
			return diag_set(diag, -EINVAL, "group=%s: there is no group of this name",
					value);
		c->group = group->gr_gid;
	}
	c->has_group = true;
	return 0;
}

static int config_set_mode(struct config *c, const struct config_key *k, const char *value,
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

static int config_set_backing(struct config *c, const struct config_key *k, const char *value,
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

#define FIELD(name) offsetof(struct config, name)

static const struct config_key config_keys[] = {
	{"image", config_set_string, FIELD(image), false, "PATH",
	 "the disk image, or the block device that holds one"},
	{"format", config_set_format, FIELD(format), false, "auto|raw|qcow2",
	 "format of the image; a writable raw image must be stated"},
	{"read_only", config_set_bool, FIELD(read_only), true, "yes|no",
	 "nobody can write, and the image file is opened for reading only"},
	{"snapshot", config_set_snapshot, FIELD(snapshot), false, "ID|NAME",
	 "show an internal snapshot of the image; together with read_only"},
	{"growable", config_set_bool, FIELD(growable), true, "yes|no",
	 "truncate and writes past the end change the size of the disk"},
	{"discard", config_set_discard, FIELD(discard), false, "unmap|ignore",
	 "whether punched holes give their space back to the host"},
	{"direct_io", config_set_bool, FIELD(direct_io), true, "yes|no",
	 "open the image with O_DIRECT, past the host's page cache"},
	{"lock", config_set_bool, FIELD(lock), true, "yes|no",
	 "lock the image's files, so that no virtual machine uses them at the same time"},
	{"cache", config_set_cache, FIELD(cache), false, "auto|none",
	 "whether programs that read the disk may use the page cache"},
	{"allow_other", config_set_tristate, FIELD(allow_other), true, "auto|yes|no",
	 "whether other users may enter the mount; auto: when root mounts"},
	{"threads", config_set_threads, 0, false, "auto|1..64", "threads that serve requests"},
	{"table_cache", config_set_table_cache, 0, false, "auto|256K..1G",
	 "memory for tables of each file of the image; auto: 8M"},
	{"owner", config_set_owner, 0, false, "USER|UID", "owner of the disk file"},
	{"group", config_set_group, 0, false, "GROUP|GID", "group of the disk file"},
	{"mode", config_set_mode, 0, false, "000..777",
	 "permissions of the disk file, octal; 600, or 400 where read-only"},
	{"backing", config_set_backing, 0, false, "directory|none|DIR:DIR",
	 "where files that the image names may be: its directory, nowhere, listed ones"},
};

#undef FIELD

int config_init(struct config *c)
{
	memset(c, 0, sizeof(*c));
	c->format = strdup("auto");
	if (!c->format)
		return -ENOMEM;
	c->discard = true;
	c->lock = true;
	c->backing.backing = LOCATE_SAME_DIRECTORY;
	return 0;
}

void config_done(struct config *c)
{
	free(c->image);
	free(c->format);
	free(c->snapshot);
	locate_policy_done(&c->backing);
	memset(c, 0, sizeof(*c));
}

/* The row of a key in either spelling, or NULL. */
static const struct config_key *config_find(const char *key)
{
	char name[CONFIG_KEY_MAX];
	size_t n = strlen(key);

	if (n >= sizeof(name))
		return NULL;
	for (size_t i = 0; i <= n; i++)
		name[i] = key[i] == '-' ? '_' : (char)tolower((unsigned char)key[i]);
	for (size_t i = 0; i < ARRAY_SIZE(config_keys); i++)
		if (strcmp(config_keys[i].key, name) == 0)
			return &config_keys[i];
	return NULL;
}

static int config_unknown(const char *key, struct diag *diag)
{
	const char *words[ARRAY_SIZE(config_keys) + 1] = {NULL};
	char shown[CONFIG_KEY_MAX * 4];
	int near;

	for (size_t i = 0; i < ARRAY_SIZE(config_keys); i++)
		words[i] = config_keys[i].key;
	near = parse_suggest(key, words);
	diag_quote(shown, sizeof(shown), key, strnlen(key, CONFIG_KEY_MAX));
	if (near >= 0)
		return diag_set(diag, -EINVAL, "%s: no such option; did you mean %s?", shown,
				words[near]);
	return diag_set(diag, -EINVAL, "%s: no such option", shown);
}

int config_set(struct config *c, const char *key, const char *value, struct diag *diag)
{
	const struct config_key *k = config_find(key);
	struct diag own = {0};
	int r;

	if (!k)
		return config_unknown(key, diag);
	if (!value && !k->flag)
		return diag_set(diag, -EINVAL, "%s needs a value: %s=%s", k->key, k->key,
				k->values);
	r = k->set(c, k, value ?: "yes", &own);
	if (r >= 0)
		return 0;
	if (own.text[0])
		return diag_set(diag, r, "%s", own.text);
	if (r != -EINVAL && r != -ERANGE)
		return diag_errno(diag, r, "%s", k->key);
	return diag_set(diag, -EINVAL, "%s=%s: must be %s", k->key, value ?: "", k->values);
}

/* Cuts the next option off *rest, in place: up to a comma that no backslash precedes. */
static char *config_next_option(char **rest)
{
	char *start = *rest, *out = start, *p = start;

	while (*p && *p != ',') {
		if (p[0] == '\\' && (p[1] == ',' || p[1] == '\\'))
			p++;
		*out++ = *p++;
	}
	*rest = *p ? p + 1 : p;
	*out = '\0';
	return start;
}

int config_parse_options(struct config *c, const char *options, struct diag *diag)
{
	_cleanup_free_ char *copy = strdup(options);
	char *rest = copy;

	if (!copy)
		return diag_errno(diag, -ENOMEM, "options");
	while (*rest) {
		char *key = config_next_option(&rest);
		char *value = strchr(key, '=');
		int r = 0;

		if (value)
			*value++ = '\0';
		if (!value && strcmp(key, "ro") == 0)
			c->read_only = true;
		else if (!value && strcmp(key, "rw") == 0)
			c->read_only = false;
		else if (*key || value) /* a stray comma is nobody's mistake worth a failure */
			r = config_set(c, key, value, diag);
		if (r < 0)
			return r;
	}
	return 0;
}

void config_describe(void (*f)(void *data, const char *key, const char *values, const char *help),
		     void *data)
{
	for (size_t i = 0; i < ARRAY_SIZE(config_keys); i++)
		f(data, config_keys[i].key, config_keys[i].values, config_keys[i].help);
}
