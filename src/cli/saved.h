/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SAVED_H
#define FUSEIMG_SAVED_H

/*
 * What a repair overwrites, in a file of its own: IMAGE.fuseimg-check-TIME, made when there is
 * something to save. It begins with a line that says what it is and the size that the image had;
 * then come records: offset and length (64 bits each, big endian), and so many bytes.
 */

#include "base/diag.h"
#include "store/store.h"

struct saved {
	const char *image;   /* path */
	const char *dir;     /* NULL: that of the image */
	uint64_t image_size; /* before the repair */
	struct diag *diag;
	int fd;	    /* -1: nothing was saved */
	char *path; /* of the file; NULL: nothing was saved */
};

/* image_size: as it is, before the repair begins. The others are borrowed. */
void saved_init(struct saved *s, const char *image, const char *dir, uint64_t image_size,
		struct diag *diag);
void saved_done(struct saved *s);

int saved_write(struct saved *s, const void *bytes, size_t len, uint64_t off);
/* On stable storage, the file's name included. */
int saved_flush(struct saved *s);

/* Puts back what the file at path holds. Whatever was changed after the repair is lost, or is in
 * conflict with it. */
int saved_undo(const char *path, struct store *store, struct diag *diag);

#endif
