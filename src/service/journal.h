/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_JOURNAL_H
#define FUSEIMG_JOURNAL_H

/*
 * Events that an administrator may want to be told of: one line of the log like any other, and in
 * the journal with fields beside it, so that nobody has to take sentences apart. The identifiers
 * (MESSAGE_ID=) never change their meaning; fuseimg@.service(8) has the table.
 */

#include <stdbool.h>
#include <stdint.h>

enum journal_event {
	JOURNAL_WORKER_DIED,
	JOURNAL_WORKER_HANGS,
	JOURNAL_POISON,
	JOURNAL_IO_ERROR,
	JOURNAL_CORRUPT,
	JOURNAL_DISK_HANGS,
	JOURNAL_DEVICE_GONE,
	JOURNAL_RESUMED,
	JOURNAL_GAVE_UP,
	JOURNAL_EVENTS, /* their number */
};

/* What an event is about, as far as it is known; zeroes are left out. */
struct journal_detail {
	int error; /* negative errno */
	bool has_offset;
	uint64_t offset; /* in the disk */
};

struct supervisor;
void journal_event(const struct supervisor *s, enum journal_event event,
		   const struct journal_detail *detail, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* 32 hexadecimal digits. */
const char *journal_id(enum journal_event event);

#endif
