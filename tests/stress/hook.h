/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STRESS_HOOK_H
#define FUSEIMG_STRESS_HOOK_H

/* A store in front of another one, which tells somebody of every call before it goes on: to make
 * the order of threads odder than a quiet machine does, or to stop one of them at a certain call.
 */

#include "store/store.h"

struct hook {
	void (*before)(struct hook *hook, bool writes);
};

/* Takes over inner, also on failure. hook NULL: inner itself. */
int hook_store_new(struct store *inner, struct hook *hook, struct store **ret);

/* Now and then gives way to other threads. */
extern struct hook hook_jitter;

#endif
