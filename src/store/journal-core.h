/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_JOURNAL_CORE_H
#define FUSEIMG_JOURNAL_CORE_H

/* What journal.c (recording) and journal-cut.c (the power cut) share. */

#include "base/thread.h"
#include "store/journal.h"

enum {
	JOURNAL_DISKS_MAX = 4,
	JOURNAL_SECTOR = 512,
};

struct journal_disk {
	char *name;
	struct store *base; /* what it held when it was attached */
	/* base with this disk's records before `upto`: cuts mostly come in rising order. */
	struct store *durable;
	size_t upto;
};

struct journal {
	struct mutex lock;
	struct journal_record *records GUARDED_BY(lock);
	size_t n_records GUARDED_BY(lock), room GUARDED_BY(lock);
	struct journal_disk disks[JOURNAL_DISKS_MAX] GUARDED_BY(lock);
	unsigned n_disks GUARDED_BY(lock);
	unsigned slow GUARDED_BY(lock);	   /* microseconds that a flush takes */
	uint64_t fail_in GUARDED_BY(lock); /* the flush to fail, counted from 1; 0: none */
};

/* A new memory store with the same bytes and size. */
int journal_copy(struct store *s, struct store **ret);

#endif
