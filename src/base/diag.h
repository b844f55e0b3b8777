/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_DIAG_H
#define FUSEIMG_DIAG_H

/*
 * The sentence that goes with an errno. The core neither logs nor exits: a function that can fail
 * for a reason a person must understand takes a struct diag and fills it with one sentence which
 * names the file, the structure and the value. The text has no trailing newline and no full stop.
 * Every function accepts a NULL diag.
 */

#include <stddef.h>

#define DIAG_MAX 1024

struct diag {
	int error;	     /* negative errno, 0 while nothing failed */
	char text[DIAG_MAX]; /* "" while nothing failed; always NUL-terminated */
};

/*
 * Stores the sentence and returns error (a negative errno), so that callers can write
 * `return diag_set(diag, -EUCLEAN, "...")`. A sentence that is too long is cut.
 */
int diag_set(struct diag *diag, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Like diag_set(), with ": strerror(error)" behind the sentence. */
int diag_errno(struct diag *diag, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "fmt: " before the sentence that is there; leaves the error as it is and returns it. */
int diag_prefix(struct diag *diag, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Copies at most len bytes of src, which may come from an image, into dst (dst_size bytes, always
 * terminated): control and non-UTF-8 bytes appear as \xNN, so that the text is safe in a terminal.
 */
const char *diag_quote(char *dst, size_t dst_size, const void *src, size_t len);

#endif
