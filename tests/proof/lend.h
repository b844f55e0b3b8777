/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROOF_LEND_H
#define FUSEIMG_PROOF_LEND_H

/*
 * A store for somebody who closes what he was given, while the owner needs it longer: an image is
 * opened, closed and opened again on the same disk.
 *
 * It does what file.c does about flushes that failed: until it is closed in order all later ones
 * fail, too. So a fault that happens once to a flush is one that the image is told of for the rest
 * of a life, and after a kill.
 */

#include "store/store.h"

/* inner must live longer. */
struct store *lend_new(struct store *inner, bool read_only);
/* What its first flush that failed said, or 0. */
int lend_lost(struct store *s);

#endif
