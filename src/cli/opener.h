/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_OPENER_H
#define FUSEIMG_OPENER_H

/* Opening an image, and the files it names, in this process: for verbs that only look. */

#include "base/cleanup.h"
#include "image/image.h"
#include "service/config.h"

/* Opens the image at path with its chain, for reading, by the format and the BACKING= policy of
 * config (which need not name an image). */
int opener_open_image(const char *path, const struct config *config, struct image **ret,
		      struct diag *diag);

DEFINE_CLEANUP(struct image *, image_close);
#define _cleanup_image_ _cleanup_(image_closep)

#endif
