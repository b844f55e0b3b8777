/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_REGISTRY_H
#define FUSEIMG_REGISTRY_H

/*
 * Which exports run: one small file per supervisor in a run-time directory (/run/fuseimg/exports as
 * root, $XDG_RUNTIME_DIR/fuseimg/exports or a private directory below /tmp otherwise), locked by
 * its supervisor for as long as it lives. `list` reads them; `umount` waits for the lock, since
 * only the end of the supervisor means that everything is on stable storage. A file that nobody
 * locks is a leftover of a supervisor that was killed, and is removed by whoever meets it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/diag.h"

struct registry_entry {
	pid_t pid;    /* the supervisor */
	char *image;  /* real path */
	char *target; /* real path of the mount point */
	char *format;
	char *snapshot; /* the internal snapshot that is shown, or NULL */
	char *name;	/* of the service, or NULL */
	uint64_t size;
	bool read_only;
};
void registry_entry_done(struct registry_entry *e);

/* The supervisor's own entry. Call before mounting: it claims the target (-EBUSY with a sentence
 * when another live export has it). */
struct registry_own;
int registry_add(const struct registry_entry *e, struct registry_own **ret, struct diag *diag);
/* An entry that an earlier supervisor made: its descriptor, which holds the lock, is taken over. */
int registry_adopt(int fd, const char *path, struct registry_own **ret);
/* Writes what of an entry may change: pid, size, read_only. Takes NULL. */
void registry_refresh(struct registry_own *own, const struct registry_entry *e);
/* For a successor; -1 and NULL for NULL. */
int registry_fd(const struct registry_own *own);
const char *registry_path(const struct registry_own *own);
/* Lets go of an entry that stays, for a later supervisor. Takes NULL. */
void registry_leave(struct registry_own *own);
/* Removes the entry and leaves the outcome (0, or negative errno and the sentence) to those who
 * wait. Takes NULL. */
void registry_remove(struct registry_own *own, const struct diag *outcome);

/* Live entries that the caller may see, sorted by target; array and entries are the caller's. */
int registry_list(struct registry_entry **ret, size_t *ret_n, struct diag *diag);

/* A handle on the live export of a target (real path); NULL in *ret when there is none. */
struct registry_watch;
int registry_watch(const char *target, struct registry_watch **ret, struct diag *diag);
/* Waits for the end of its supervisor (timeout_ms < 0: for ever) and frees nothing. 0, -ETIME,
 * -EOWNERDEAD (it was killed), or what the supervisor ended with (sentence in diag). */
int registry_wait(struct registry_watch *w, int timeout_ms, struct diag *diag);
void registry_watch_free(struct registry_watch *w);

#endif
