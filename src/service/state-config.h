/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STATE_CONFIG_H
#define FUSEIMG_STATE_CONFIG_H

/* Private to state.c: the configuration as a part of the state. Values are spelled as in a
 * configuration file, users and groups by number. */

#include "service/config.h"

#define STATE_CONFIG_PREFIX "config."

typedef void (*state_put_fn)(void *data, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

void state_config_write(const struct config *c, state_put_fn put, void *data);
/* key with its prefix. */
int state_config_take(struct config *c, const char *key, const char *value, struct diag *diag);

#endif
