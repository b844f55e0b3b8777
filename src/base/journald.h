/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_JOURNALD_H
#define FUSEIMG_JOURNALD_H

/*
 * Messages with fields for the journal, in its own protocol (systemd's JOURNAL_NATIVE_PROTOCOL).
 * Not by sd_journal_send(): that blocks while the journal does not read, and it may be waiting for
 * a file system of ours.
 */

#include <stdbool.h>
#include <stddef.h>

struct journald_field {
	const char *name;  /* capitals, digits, "_" */
	const char *value; /* NULL: the field is left out */
};

/* Is standard error of this process a stream to the journal (JOURNAL_STREAM in systemd.exec(5))? */
bool journald_has_stderr(void);

/* FUSEIMG_JOURNAL_SOCKET replaces the path of the journal's socket (tests). 0, or negative errno:
 * there is no journal, or it has too much to read. */
int journald_send(const struct journald_field *fields, size_t n);

/* What is sent; the number of bytes in buf, 0: it does not fit. A newline in a value becomes a
 * blank. Split from journald_send() for tests. */
size_t journald_format(const struct journald_field *fields, size_t n, char *buf, size_t size);

#endif
