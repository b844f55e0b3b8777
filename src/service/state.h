/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_STATE_H
#define FUSEIMG_STATE_H

/*
 * What a supervisor must know to go on where another one ended: all that is not in the descriptors
 * themselves. It stands in a memfd that the next supervisor is handed with them (handover.h): by
 * us at a reload, by systemd's fd store after a crash.
 *
 * The memfd has two halves, written in turn, each with a sequence number and a checksum over its
 * text: who is killed while it writes leaves the other half. The text is "key=value" strings, each
 * ended by a NUL. A reader ignores keys that it does not know, so a key that must be understood
 * comes with a new version, which an older program refuses.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/diag.h"
#include "service/config.h"
#include "service/crashes.h"
#include "service/files.h"
#include "session/channel.h"
#include "session/session.h"
#include "session/slots.h"

struct state {
	uint32_t slots_version;
	char *program; /* what a reload executes */
	bool syslog;   /* where messages go */
	/* the export */
	char *image;  /* real path */
	char *target; /* real path */
	bool directory;
	char *source; /* as the mount table has it */
	uint64_t dev; /* of the file system */
	char *entry;  /* path of the entry in the list of exports, NULL: it has none */
	uint32_t threads;
	struct session_granted granted;
	struct worker_opened opened;
	struct config config; /* in force */
	struct crashes crashes;
	/* the image's other files; their fd is -1, it comes by another way */
	struct files_entry *files;
	unsigned n_files;
	/* For a program with another version of the slots. Only there from the orderly end of a
	 * worker to the start of the next one: at any other time it would not be true. */
	struct slots_carried *carried;
};

/* A memfd for it, or -errno. */
int state_create(void);

/* Replaces what the memfd holds. -EFBIG: it does not fit (nothing changed). */
int state_write(int fd, const struct state *state);

/*
 * Reads it; the result is the caller's, for state_done(). Nothing is believed that would not be
 * believed of a stranger: -EBADMSG where it is not whole, -EPROTONOSUPPORT where a newer version of
 * fuseimg wrote it.
 */
int state_read(int fd, struct state *ret, struct diag *diag);
/* Takes a zeroed one too. */
void state_done(struct state *state);

#endif
