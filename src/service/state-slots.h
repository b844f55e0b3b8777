/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STATE_SLOTS_H
#define FUSEIMG_STATE_SLOTS_H

/* Private to state.c: what the request memory says besides requests, as a part of the state, for a
 * program that lays that memory out in another way. */

#include "service/state-config.h"
#include "session/slots.h"

#define STATE_SLOTS_PREFIX "slots."

void state_slots_write(const struct slots_carried *c, state_put_fn put, void *data);
/* key with its prefix. -EBADMSG: the value makes no sense. */
int state_slots_take(struct slots_carried *c, const char *key, const char *value);

#endif
