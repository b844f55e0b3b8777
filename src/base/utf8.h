/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_UTF8_H
#define FUSEIMG_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the UTF-8 sequence at p (in a string that ends with a NUL), 0: there is none, or p is at
 * the end. RFC 3629. */
size_t utf8_len(const char *p);

/* Is all of s UTF-8? */
bool utf8_is_valid(const char *s);

#endif
