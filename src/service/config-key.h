/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CONFIG_KEY_H
#define FUSEIMG_CONFIG_KEY_H

/* Private to the configuration: the rows of its table, and the functions that read values. */

#include <stddef.h>

#include "base/diag.h"
#include "service/config.h"

enum {
	CONFIG_KEY_MAX = 32,
	CONFIG_SHOWN_MAX = 256, /* of a value, in a sentence */
};

enum config_kind {
	CONFIG_PLAIN,
	CONFIG_FLAG, /* behind -o the key alone means yes */
	CONFIG_BOOT, /* only in files */
};

struct config_key {
	const char *key; /* as behind -o */
	/* -EINVAL or -ERANGE for a value that is not one of `values`; fills diag itself (with what
	 * goes behind "key=value: ") only where it knows more than that */
	int (*set)(struct config *c, const struct config_key *k, const char *value,
		   struct diag *diag);
	size_t offset; /* of the field in struct config */
	enum config_kind kind;
	const char *values;
	const char *help;
};

#define CONFIG_SETTER(name)                                                                        \
	int config_set_##name(struct config *c, const struct config_key *k, const char *value,     \
			      struct diag *diag)

CONFIG_SETTER(string);
CONFIG_SETTER(format);
CONFIG_SETTER(snapshot);
CONFIG_SETTER(bool);
CONFIG_SETTER(discard);
CONFIG_SETTER(cache);
CONFIG_SETTER(tristate);
CONFIG_SETTER(threads);
CONFIG_SETTER(table_cache);
CONFIG_SETTER(owner);
CONFIG_SETTER(group);
CONFIG_SETTER(mode);
CONFIG_SETTER(backing);
CONFIG_SETTER(seconds);
CONFIG_SETTER(span);
CONFIG_SETTER(partition);
CONFIG_SETTER(word);
CONFIG_SETTER(mount);

#undef CONFIG_SETTER

#endif
