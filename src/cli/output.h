/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_OUTPUT_H
#define FUSEIMG_OUTPUT_H

/* Results on standard output, for people and for programs. */

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/diag.h"

/* Is a person looking at what we print? */
bool output_is_terminal(void);

/* Writes out what is buffered; an error (the disk is full, ...) is ours to report. */
int output_finish(struct diag *diag);

/* Prints the name of a file; what could harm a terminal appears as \xNN. */
void output_name(const char *name);

/* The beginning of a line "refcount bits: ...", from "refcount_bits". */
void output_label(const char *key);

/* "1.5 GiB (1610612736 bytes)" */
void output_size(uint64_t bytes);

/*
 * A JSON string of any bytes. JSON knows only Unicode: a file name that is not UTF-8 has its
 * foreign bytes as \xNN. NULL gives null.
 */
struct json_object *output_json_string(const char *s);

/* Adds a pair to an object; takes over value. A value that could not be had (out of memory) is an
 * abort: half an object must not be printed. */
void output_json_add(struct json_object *object, const char *key, struct json_object *value);

/* Pretty on several lines, or plain on one; with a newline. */
void output_json(struct json_object *object, bool pretty);

static inline void json_putp(struct json_object **o)
{
	if (*o)
		json_object_put(*o);
}
#define _cleanup_json_ _cleanup_(json_putp)

#endif
