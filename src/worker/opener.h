/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_OPENER_H
#define FUSEIMG_OPENER_H

/* The worker's image_opener: it asks the supervisor over the channel, and waits for the answer. */

#include "image/image.h"

struct opener {
	struct image_opener base;
	int channel_fd;
};

/* The channel stays the caller's. Used while no other thread of the worker receives from it. */
void opener_init(struct opener *o, int channel_fd);

#endif
