/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_EXPORT_H
#define FUSEIMG_EXPORT_H

/* What all serving threads share: the image, how it is to look, and the memory of the slots. */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/thread.h"
#include "fuse/serve.h"

/* Lines about failed requests: a burst, then silence with a count. */
struct export_log {
	struct mutex lock;
	time_t window GUARDED_BY(lock);
	unsigned said GUARDED_BY(lock);
	unsigned swallowed GUARDED_BY(lock);
};

struct export
{
	struct image *image;
	struct worker_config config;
	struct session_granted granted;
	struct slots slots;
	bool read_only;		/* asked for, or all that the image allows */
	struct mutex attr_lock; /* slots.head->attr, but for clearing a bit of `set` */
	struct mutex grow_lock; /* one resize at a time; taken before image's own locks */
	struct export_log log_rate;
	serve_log_fn log;
	void *log_data;
};

/* Maps the slots; the rest is copied from options. */
int export_init(struct export *ex, const struct serve_options *options, struct diag *diag);
void export_done(struct export *ex);

/* Tells the journal that an operation on the image failed; rate-limited. */
void export_log(struct export *ex, int error, uint64_t off, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Grows the image to at least size bytes. The caller has checked that it may grow. */
int export_grow(struct export *ex, uint64_t size);
/* Sets the size, up or down. */
int export_resize(struct export *ex, uint64_t size);

#endif
