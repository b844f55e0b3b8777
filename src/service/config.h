/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CONFIG_H
#define FUSEIMG_CONFIG_H

/*
 * What one export is to be. The same keys in two spellings: KEY=value in /etc/fuseimg/NAME.conf
 * (config-file.h) and key=value behind -o; one table in config.c describes them all (name, parser,
 * help).
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

/* What is to be done with the disk once it is there, for fuseimg-generator; only in files. */
struct config_boot {
	char *mount;	       /* MOUNT=: absolute path; NULL: nothing is mounted */
	char *partition;       /* PARTITION=, see base/selector.h; NULL: the whole disk */
	char *fstype;	       /* FSTYPE=, "auto" */
	char *options;	       /* MOUNT_OPTIONS=, NULL */
	uint64_t idle_timeout; /* IDLE_TIMEOUT=: microseconds, 0: none */
	bool automount;
	bool nofail;
	bool autostart;
};

struct config {
	char *image;	/* IMAGE= */
	char *format;	/* FORMAT=, "auto" */
	char *snapshot; /* SNAPSHOT=: an internal snapshot, by id or name; needs read_only. NULL */
	bool read_only;
	bool growable;
	bool discard;	    /* DISCARD=unmap */
	bool direct_io;	    /* O_DIRECT on the image */
	bool lock;	    /* LOCK=: the image and what it names, as QEMU locks them */
	unsigned lock_wait; /* LOCK_WAIT=: seconds */
	enum config_cache cache;
	enum config_tristate allow_other;
	enum config_tristate partitions; /* PARTITIONS=: part1, ... beside the disk */
	unsigned threads;		 /* 0: auto */
	uint64_t table_cache;		 /* TABLE_CACHE=: bytes. 0: auto */
	bool has_owner, has_group, has_mode;
	uid_t owner;
	gid_t group;
	unsigned mode;
	struct locate_policy backing;
	struct config_boot boot;
};

enum config_source {
	CONFIG_OPTIONS, /* behind -o: read_only */
	CONFIG_FILE,	/* in a file: READ_ONLY */
};

/* The defaults of DESIGN.md section 4. */
int config_init(struct config *c);
void config_done(struct config *c);

/* One key=value behind -o. key in any case, '-' as good as '_'. A key alone (value NULL) means yes.
 * -EINVAL with a sentence that says what is allowed, and for an unknown key what was perhaps
 * meant. */
int config_set(struct config *c, const char *key, const char *value, struct diag *diag);

/* One KEY=value of a file. The key is in capitals, the value has been unquoted; an empty one leaves
 * the default. */
int config_set_variable(struct config *c, const char *key, const char *value, struct diag *diag);

/* "key=value,key=value" as behind -o; "ro" and "rw" are understood; \, is a comma in a value. */
int config_parse_options(struct config *c, const char *options, struct diag *diag);

/* Do the values go together, and is everything there? For what stands in a file. */
int config_check(const struct config *c, struct diag *diag);

/* Calls f for each key that has a meaning there, for --help and completion. */
void config_describe(enum config_source source,
		     void (*f)(void *data, const char *key, const char *values, const char *help),
		     void *data);

#endif
