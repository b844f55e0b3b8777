/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SAVED_H
#define FUSEIMG_SAVED_H

/*
 * What a repair overwrites, in a file of its own: IMAGE.fuseimg-check-TIME, made when there is
 * something to save. It begins with a line that says what it is and the size that the image had;
 * then come records: offset and length (64 bits each, big endian), and so many bytes. The last one,
 * at no place of an image, is the seal: how the repair has left the image.
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

/* The image as a repair has left it, by which an undo knows that nothing has come in between. */
struct saved_seal {
	uint64_t size;	 /* of the file */
	uint64_t before; /* and before the repair */
	uint64_t sum;	 /* metasum.h, from `before` on */
};

/* The last thing that is written, and flushed: without it nothing can be put back. before is known
 * here already. */
int saved_put_seal(struct saved *s, const struct saved_seal *seal);
int saved_read_seal(const char *path, struct saved_seal *ret, struct diag *diag);

/* Puts back what the file at path holds, into an image that is still as its seal says. */
int saved_undo(const char *path, struct store *store, struct diag *diag);

#endif
