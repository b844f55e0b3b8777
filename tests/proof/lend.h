/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PROOF_LEND_H
#define FUSEIMG_PROOF_LEND_H

/*
 * A store for somebody who closes what he was given, while the owner needs it longer: an image is
 * opened, closed and opened again on the same disk. What a store learns of itself during one life
 * (a failed flush) is forgotten with it, as when a file is opened anew.
 */

#include "store/store.h"

/* inner must live longer. */
struct store *lend_new(struct store *inner, bool read_only);

#endif
