/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/config.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "base/selector.h"
#include "service/config-key.h"

#define FIELD(name) offsetof(struct config, name)

static const struct config_key config_keys[] = {
	{"image", config_set_string, FIELD(image), CONFIG_PLAIN, "PATH",
	 "the disk image, or the block device that holds one"},
	{"format", config_set_format, FIELD(format), CONFIG_PLAIN, "auto|raw|qcow2",
	 "format of the image; a writable raw image must be stated"},
	{"read_only", config_set_bool, FIELD(read_only), CONFIG_FLAG, "yes|no",
	 "nobody can write, and the image file is opened for reading only"},
	{"snapshot", config_set_snapshot, FIELD(snapshot), CONFIG_PLAIN, "ID|NAME",
	 "show an internal snapshot of the image; together with read_only"},
	{"growable", config_set_bool, FIELD(growable), CONFIG_FLAG, "yes|no",
	 "truncate and writes past the end change the size of the disk"},
	{"discard", config_set_discard, FIELD(discard), CONFIG_PLAIN, "unmap|ignore",
	 "whether punched holes give their space back to the host"},
	{"direct_io", config_set_bool, FIELD(direct_io), CONFIG_FLAG, "yes|no",
	 "open the image with O_DIRECT, past the host's page cache"},
	{"lock", config_set_bool, FIELD(lock), CONFIG_FLAG, "yes|no",
	 "lock the image's files, so that no virtual machine uses them at the same time"},
	{"lock_wait", config_set_seconds, FIELD(lock_wait), CONFIG_PLAIN, "0..86400",
	 "seconds to wait for another program to let go of the image's files"},
	{"cache", config_set_cache, FIELD(cache), CONFIG_PLAIN, "auto|none",
	 "whether programs that read the disk may use the page cache"},
	{"partitions", config_set_tristate, FIELD(partitions), CONFIG_FLAG, "auto|yes|no",
	 "whether the partitions of the disk are files, too, where the target is a directory"},
	{"allow_other", config_set_tristate, FIELD(allow_other), CONFIG_FLAG, "auto|yes|no",
	 "whether other users may enter the mount; auto: when root mounts"},
	{"threads", config_set_threads, 0, CONFIG_PLAIN, "auto|1..64",
	 "threads that serve requests"},
	{"table_cache", config_set_table_cache, 0, CONFIG_PLAIN, "auto|256K..1G",
	 "memory for tables of each file of the image; auto: 8M"},
	{"owner", config_set_owner, 0, CONFIG_PLAIN, "USER|UID", "owner of the disk file"},
	{"group", config_set_group, 0, CONFIG_PLAIN, "GROUP|GID", "group of the disk file"},
	{"mode", config_set_mode, 0, CONFIG_PLAIN, "000..777",
	 "permissions of the disk file, octal; 600, or 400 where read-only"},
	{"backing", config_set_backing, 0, CONFIG_PLAIN, "directory|none|PATH:PATH",
	 "where files that the image names may be: its directory, nowhere, listed ones; a data "
	 "file is only written to where it is listed"},
	{"mount", config_set_mount, FIELD(boot.mount), CONFIG_BOOT, "DIR",
	 "at boot, mount the file system on the disk there"},
	{"partition", config_set_partition, FIELD(boot.partition), CONFIG_PLAIN, SELECTOR_VALUES,
	 "the partition to mount, instead of the whole disk; it stands there as \"partition\", "
	 "too"},
	{"fstype", config_set_word, FIELD(boot.fstype), CONFIG_BOOT, "auto|TYPE",
	 "its file system's type, as for mount -t"},
	{"mount_options", config_set_word, FIELD(boot.options), CONFIG_BOOT, "OPTION,OPTION",
	 "its options, as for mount -o"},
	{"automount", config_set_bool, FIELD(boot.automount), CONFIG_BOOT, "yes|no",
	 "mount it when somebody first looks there"},
	{"idle_timeout", config_set_span, FIELD(boot.idle_timeout), CONFIG_BOOT,
	 "SECONDS|5min|1h|infinity", "unmount an automount that nobody has used for so long"},
	{"nofail", config_set_bool, FIELD(boot.nofail), CONFIG_BOOT, "yes|no",
	 "the system boots without it, too"},
	{"autostart", config_set_bool, FIELD(boot.autostart), CONFIG_BOOT, "yes|no",
	 "start the export at boot"},
};

#undef FIELD

int config_init(struct config *c)
{
	memset(c, 0, sizeof(*c));
	c->format = strdup("auto");
	c->boot.fstype = strdup("auto");
	if (!c->format || !c->boot.fstype) {
		config_done(c);
		return -ENOMEM;
	}
	c->discard = true;
	c->lock = true;
	c->backing.backing = LOCATE_SAME_DIRECTORY;
	c->boot.nofail = true;
	c->boot.autostart = true;
	return 0;
}

void config_done(struct config *c)
{
	free(c->image);
	free(c->format);
	free(c->snapshot);
	free(c->boot.mount);
	free(c->boot.partition);
	free(c->boot.fstype);
	free(c->boot.options);
	locate_policy_done(&c->backing);
	memset(c, 0, sizeof(*c));
}

/* A key as it is written in that place. */
static const char *config_spell(char dst[CONFIG_KEY_MAX], const struct config_key *k,
				enum config_source source)
{
	size_t i = 0;

	for (; k->key[i]; i++)
		dst[i] = source == CONFIG_FILE ? (char)toupper(k->key[i]) : k->key[i];
	dst[i] = '\0';
	return dst;
}

/* The row of a key, or NULL. On a command line it may be written in any way, in a file (where
 * systemd, too, tells capitals from small letters) only in one. */
static const struct config_key *config_find(const char *key, enum config_source source)
{
	char name[CONFIG_KEY_MAX], spelled[CONFIG_KEY_MAX];
	size_t n = strlen(key);

	if (n >= sizeof(name))
		return NULL;
	for (size_t i = 0; i <= n; i++)
		name[i] = source == CONFIG_FILE ? key[i]
			  : key[i] == '-'	? '_'
						: (char)tolower((unsigned char)key[i]);
	for (size_t i = 0; i < ARRAY_SIZE(config_keys); i++)
		if (strcmp(config_spell(spelled, &config_keys[i], source), name) == 0)
			return &config_keys[i];
	return NULL;
}

static int config_unknown(const char *key, enum config_source source, struct diag *diag)
{
	char spelled[ARRAY_SIZE(config_keys)][CONFIG_KEY_MAX], shown[CONFIG_KEY_MAX * 4];
	char guess[CONFIG_KEY_MAX];
	const char *words[ARRAY_SIZE(config_keys) + 1] = {NULL}, *what;
	size_t n = 0;
	int near;

	for (size_t i = 0; i < ARRAY_SIZE(config_keys); i++)
		if (source == CONFIG_FILE || config_keys[i].kind != CONFIG_BOOT)
			words[n++] = config_spell(spelled[i], &config_keys[i], source);
	what = source == CONFIG_FILE ? "no such setting" : "no such option";
	for (n = 0; n + 1 < sizeof(guess) && key[n]; n++)
		guess[n] = source == CONFIG_FILE ? (char)toupper((unsigned char)key[n]) : key[n];
	guess[n] = '\0';
	near = parse_suggest(guess, words);
	diag_quote(shown, sizeof(shown), key, strnlen(key, CONFIG_KEY_MAX));
	if (near >= 0)
		return diag_set(diag, -EINVAL, "%s: %s; did you mean %s?", shown, what,
				words[near]);
	return diag_set(diag, -EINVAL, "%s: %s", shown, what);
}

/* name: the key as the user knows it. */
static int config_apply(struct config *c, const struct config_key *k, const char *name,
			const char *value, struct diag *diag)
{
	char shown[CONFIG_SHOWN_MAX];
	struct diag own = {0};
	int r = k->set(c, k, value, &own);

	if (r >= 0)
		return 0;
	diag_quote(shown, sizeof(shown), value, strlen(value));
	if (own.text[0])
		return diag_set(diag, r, "%s=%s: %s", name, shown, own.text);
	if (r != -EINVAL && r != -ERANGE)
		return diag_errno(diag, r, "%s", name);
	return diag_set(diag, -EINVAL, "%s=%s: must be %s", name, shown, k->values);
}

int config_set(struct config *c, const char *key, const char *value, struct diag *diag)
{
	const struct config_key *k = config_find(key, CONFIG_OPTIONS);

	if (!k)
		return config_unknown(key, CONFIG_OPTIONS, diag);
	if (k->kind == CONFIG_BOOT)
		return diag_set(diag, -EINVAL,
				"%s: only has a meaning in a file, see fuseimg.conf(5)", k->key);
	if (!value && k->kind != CONFIG_FLAG)
		return diag_set(diag, -EINVAL, "%s needs a value: %s=%s", k->key, k->key,
				k->values);
	return config_apply(c, k, k->key, value ?: "yes", diag);
}

int config_set_variable(struct config *c, const char *key, const char *value, struct diag *diag)
{
	const struct config_key *k = config_find(key, CONFIG_FILE);

	if (!k)
		return config_unknown(key, CONFIG_FILE, diag);
	return *value ? config_apply(c, k, key, value, diag) : 0;
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

/* A row applies where the first is so and the second is not. */
static int config_check_boot(const struct config_boot *b, struct diag *diag)
{
	const struct {
		bool given, needed;
		const char *sentence;
	} rules[] = {
		{strcmp(b->fstype, "auto") != 0, b->mount,
		 "FSTYPE= says what to mount, MOUNT= where; it is missing"},
		{b->options, b->mount,
		 "MOUNT_OPTIONS= says how to mount, MOUNT= where; it is missing"},
		{b->automount, b->mount, "AUTOMOUNT=yes needs MOUNT=, which says where"},
		{b->idle_timeout, b->automount,
		 "IDLE_TIMEOUT= needs AUTOMOUNT=yes: only that mounts it again"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].given && !rules[i].needed)
			return diag_set(diag, -EINVAL, "%s", rules[i].sentence);
	return 0;
}

int config_check(const struct config *c, struct diag *diag)
{
	if (!c->image)
		return diag_set(diag, -EINVAL, "IMAGE= is missing: which image is it about?");
	if (c->image[0] != '/')
		return diag_set(diag, -EINVAL,
				"IMAGE=%s: must be an absolute path, beginning with /", c->image);
	if (c->snapshot && !c->read_only)
		return diag_set(diag, -EINVAL,
				"SNAPSHOT=%s can only be read: it needs READ_ONLY=yes",
				c->snapshot);
	return config_check_boot(&c->boot, diag);
}

void config_describe(enum config_source source,
		     void (*f)(void *data, const char *key, const char *values, const char *help),
		     void *data)
{
	char spelled[CONFIG_KEY_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(config_keys); i++) {
		const struct config_key *k = &config_keys[i];

		if (source == CONFIG_FILE || k->kind != CONFIG_BOOT)
			f(data, config_spell(spelled, k, source), k->values, k->help);
	}
}
