/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SHARE_H
#define FUSEIMG_SHARE_H

/* What all serving threads share: the image, how it is to look, and the memory of the slots. */

#include <stdbool.h>
#include <stdint.h>

#include "base/thread.h"
#include "fuse/serve.h"

struct share {
	struct image *image;
	struct worker_config config;
	struct session_granted granted;
	struct slots slots;
	bool read_only;		/* asked for, or all that the image allows */
	struct mutex attr_lock; /* slots.head->attr, but for clearing a bit of `set` */
	struct mutex grow_lock; /* one resize at a time; taken before image's own locks */
	serve_log_fn log;
	void *log_data;
};

/* Maps the slots; the rest is copied from options. */
int share_init(struct share *share, const struct serve_options *options, struct diag *diag);
void share_done(struct share *share);

/* Tells the journal that an operation on the image failed. The supervisor adds where (off, unless
 * it is UINT64_MAX) and the words for error. */
void share_log(struct share *share, int error, uint64_t off, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Grows the image to at least size bytes. The caller has checked that it may grow. */
int share_grow(struct share *share, uint64_t size);
/* Sets the size, up or down. */
int share_resize(struct share *share, uint64_t size);

#endif
