/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_ENV_FILE_H
#define FUSEIMG_ENV_FILE_H

/*
 * Files of KEY=value lines, by the rules of EnvironmentFile= in systemd.exec(5): lines that begin
 * with "#" or ";" are comments; a value may be quoted, in part too ('one''two'); outside of quotes
 * the blanks around it do not count; a backslash at the end of a line continues it, any other one
 * takes the character behind it literally, in double quotes only before one of "\`$.
 *
 * What is accepted here is read by systemd in the same way. Not the other way round: what systemd
 * passes over in silence is an error here (a line without "=", quotes that do not end), and so is
 * a comment with a backslash at its end: systemd 254 takes the next line for itself, older ones
 * take it for a part of the comment.
 */

#include <stddef.h>

#include "base/diag.h"

struct env_file_pair {
	const char *key;
	const char *value; /* "": nothing stands behind the "=" */
	unsigned line;	   /* where the key stands, from 1 */
};

/* Negative errno ends the reading. */
typedef int (*env_file_fn)(void *data, const struct env_file_pair *pair, struct diag *diag);

/* Calls f for each pair in order. -EINVAL: not such a file; the sentence begins "NAME:LINE: ". What
 * f answers is passed through, as is its sentence. */
int env_file_parse(const char *name, const char *text, size_t len, env_file_fn f, void *data,
		   struct diag *diag);

#endif
