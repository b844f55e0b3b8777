/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CONFIG_H
#define FUSEIMG_CONFIG_H

/*
 * What one export is to be. The same keys in two spellings: KEY=value in /etc/fuseimg/NAME.conf and
 * key=value behind -o; one table in config.c describes them all (name, parser, help).
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/diag.h"
#include "base/locate.h"

enum config_cache {
	CONFIG_CACHE_AUTO, /* clients may use the page cache */
	CONFIG_CACHE_NONE,
};

enum config_tristate {
	CONFIG_AUTO,
	CONFIG_NO,
	CONFIG_YES,
};

struct config {
	char *image;	/* IMAGE= */
	char *format;	/* FORMAT=, "auto" */
	char *snapshot; /* SNAPSHOT=: an internal snapshot, by id or name; needs read_only. NULL */
	bool read_only;
	bool growable;
	bool discard;	/* DISCARD=unmap */
	bool direct_io; /* O_DIRECT on the image */
	bool lock;	/* LOCK=: the image and what it names, as QEMU locks them */
	enum config_cache cache;
	enum config_tristate allow_other;
	unsigned threads;     /* 0: auto */
	uint64_t table_cache; /* TABLE_CACHE=: bytes. 0: auto */
	bool has_owner, has_group, has_mode;
	uid_t owner;
	gid_t group;
	unsigned mode;
	struct locate_policy backing;
};

/* The defaults of DESIGN.md section 4. */
int config_init(struct config *c);
void config_done(struct config *c);

/* One key=value. key in any case, '-' as good as '_'. A key alone (value NULL) means yes.
 * -EINVAL with a sentence that says what is allowed, and for an unknown key what was perhaps
 * meant. */
int config_set(struct config *c, const char *key, const char *value, struct diag *diag);

/* "key=value,key=value" as behind -o; "ro" and "rw" are understood; \, is a comma in a value. */
int config_parse_options(struct config *c, const char *options, struct diag *diag);

/* Calls f for each key, for --help and completion. */
void config_describe(void (*f)(void *data, const char *key, const char *values, const char *help),
		     void *data);

#endif
