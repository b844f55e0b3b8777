/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SLOTS_H
#define FUSEIMG_SLOTS_H

/*
 * The memory that supervisor and worker share, and that survives the worker: one slot per serving
 * thread (slot i belongs to the i-th cloned /dev/fuse fd for the life of the session), counters,
 * and what was set on our nodes by chmod, chown and touch.
 *
 * What a slot says after its worker was killed. `unique` is the field of the fuse_in_header at the
 * start of the request; state is SLOT_OPEN or SLOT_DONE:
 *
 *   unique == 0               nothing: the thread waited for a request, or its answer was seen out
 *   unique != 0, SLOT_OPEN    handed out by the kernel, maybe half executed, certainly not answered
 *   unique != 0, SLOT_DONE    executed; the answer in `reply` was perhaps sent
 *
 * The successor executes OPEN requests again and only sends the reply of DONE ones (a second answer
 * is refused by the kernel with ENOENT). The difference matters: an answered write must never be
 * executed again, since a later write to the same bytes may have been answered meanwhile. Requests
 * that change nothing (READ, GETATTR, ...) need not be marked DONE.
 *
 * The thread's order of stores, each visible in memory before the next step:
 *   1. unique = 0, then state = SLOT_OPEN, then read(2) on the fuse fd into `request`
 *   2. execute
 *   3. reply filled, then state = SLOT_DONE, then the answer is written to the fuse fd
 *   4. go to 1 (unique is zeroed first: DONE with unique 0 is idle)
 *
 * The supervisor reads only headers, never request data.
 *
 * Programs of another version may lay all of this out in another way. What goes from one to the
 * other is struct slots_carried, as text (service/state.h), and only while no request is in hand.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"

enum {
	SLOTS_MAX = 64,
	SLOTS_PARTS_MAX = 128,	 /* partitions that have a name at one time */
	SLOTS_WINDOWS_MAX = 256, /* ... that have had one in the life of a session */
	SLOTS_WINDOW_NODE = 16,	 /* the node id of the first window */
	/* node attributes kept, by node id - 1 */
	SLOTS_NODES_MAX = SLOTS_WINDOW_NODE - 1 + SLOTS_WINDOWS_MAX,
	SLOTS_KEPT_MAX = 3072,
	SLOTS_KEPT_LOST = 2912, /* where in it stands what flushes have lost: */
	SLOTS_LOST_MAX = 2,	/* so many errors, int32_t */
	SLOT_PAGE = 4096,
	SLOT_DATA_MAX = 1 << 20, /* largest WRITE payload */
	SLOT_REPLY_MAX = 256,	 /* largest answer of a request that changes something */
	/* fuse_in_header + fuse_write_in: the request starts so that the payload of a WRITE is
	 * aligned to a page (O_DIRECT on the image) */
	SLOT_WRITE_HEAD = 80,
};

/* Of all that is laid out here. */
extern const uint32_t slots_version;

enum slot_state {
	SLOT_OPEN = 0,
	SLOT_DONE = 1,
};

/* Grow only; each is written by the slot's own thread. */
struct slot_counters {
	_Atomic uint64_t reads, read_bytes;
	_Atomic uint64_t writes, write_bytes;
	_Atomic uint64_t flushes;
	_Atomic uint64_t discards; /* punches and zero ranges */
	_Atomic uint64_t others;   /* every other request */
	_Atomic uint64_t
		errors; /* answers that told of a failed image or host (EIO, ENOSPC, EUCLEAN) */
};

/*
 * What clients set by chmod, chown and touch. A bit that is not in `set` means: as configured, or
 * as the image's file says. FATTR_MTIME is cleared by the next write.
 */
struct slots_attr {
	_Atomic uint32_t set; /* FATTR_MODE, FATTR_UID, FATTR_GID, FATTR_ATIME, FATTR_MTIME */
	uint32_t mode, uid, gid;
	int64_t atime_ns, mtime_ns;
	int64_t ctime_ns; /* when any of them was set; 0: never */
};

/*
 * A part of the disk that stands as a file of its own. Number and place never change: whoever has
 * the file open goes on with the same bytes, whatever the table says later.
 */
struct slots_window {
	uint64_t off;
	_Atomic uint64_t len;
	uint32_t number; /* of the partition */
};

/* Which windows have a name now. */
struct slots_names {
	uint32_t n;
	uint32_t selected; /* by PARTITION=: a partition's number, 0: none */
	uint16_t window[SLOTS_PARTS_MAX];
};

/*
 * The partitions of a session: see fuse/windows.h. A worker that takes over finds here what its
 * predecessor has shown, and does not look at the disk again. There are two lists of names: the
 * next one is complete before `live` says that it is in force.
 */
struct slots_windows {
	_Atomic uint32_t n;
	_Atomic uint32_t live; /* 0 or 1 */
	struct slots_names names[2];
	struct slots_window windows[SLOTS_WINDOWS_MAX];
};

/* How files of this session have been opened so far: decides about caches, see ops_open(). */
enum slots_opened {
	SLOTS_OPENED_DIRECT = 1 << 0,	  /* past the page cache */
	SLOTS_OPENED_DISK_WRITE = 1 << 1, /* the disk, for writing */
	SLOTS_OPENED_PART_WRITE = 1 << 2, /* a partition, for writing */
};

struct slot {
	_Atomic uint32_t state;
	uint32_t reply_len;
	uint8_t reply[SLOT_REPLY_MAX]; /* fuse_out_header and payload */
	/* The thread's, see base/activity.h: odd while it waits for the host's disk */
	_Atomic uint32_t io;
	struct slot_counters counters;
	/* SLOT_PAGE - SLOT_WRITE_HEAD bytes into the second page the request begins */
};

struct slots_head {
	uint32_t magic, version;
	uint32_t n;
	/* 1 + the slot whose request is being executed again before there are threads; 0: none.
	 * Should the worker die, this request alone is to blame. */
	_Atomic uint32_t replaying;
	_Atomic uint32_t opened; /* enum slots_opened */
	/* The worker's, under a lock of its own: there is only one worker at a time, and a SETATTR
	 * that died half-way is executed again */
	struct slots_attr attr[SLOTS_NODES_MAX];
	/* The worker's main thread, see base/activity.h */
	_Atomic uint32_t io;
	/* What the next worker must know of the image if this one is killed (struct image_kept);
	 * zero at first */
	_Alignas(8) uint8_t kept[SLOTS_KEPT_MAX];
	struct slots_windows windows;
};

enum {
	SLOTS_HEAD_SIZE = 6 * SLOT_PAGE,
	SLOT_REQUEST_OFF = 2 * SLOT_PAGE - SLOT_WRITE_HEAD,
	/* what read(2) is given: the largest WRITE, and never less than the kernel's minimum */
	SLOT_REQUEST_MAX = SLOT_WRITE_HEAD + SLOT_DATA_MAX,
	SLOT_SIZE = 2 * SLOT_PAGE + SLOT_DATA_MAX,
};

/* A mapping of the memory; slots_map() fills it, slots_unmap() takes a zeroed one too. */
struct slots {
	struct slots_head *head;
	uint8_t *base;
	unsigned n;
};

/* New zeroed memory for n slots, as a sealed memfd (its size cannot change). fd or -errno. */
int slots_create(unsigned n);
/* The same for more slots, the first of which hold what those of fd do. For a supervisor, while no
 * worker lives. */
int slots_create_from(int fd, unsigned n);
int slots_map(int fd, struct slots *ret, struct diag *diag);
/*
 * The same for who reads requests into it: the pages are there, and stay where RLIMIT_MEMLOCK
 * allows. Not for speed: when SIGKILL meets a thread for which the kernel has to bring in a page
 * while it copies a request, the kernel gives up and answers the client with EIO
 * (fuse_dev_do_read() up to 6.18 at least), and no successor can make that good.
 */
int slots_map_resident(int fd, struct slots *ret, struct diag *diag);
void slots_unmap(struct slots *s);

struct slot *slots_at(const struct slots *s, unsigned i);
/* Where the request of slot i is read to: SLOT_REQUEST_MAX bytes. */
void *slots_request(const struct slots *s, unsigned i);
/* The unique of the request that slot i holds, 0: none. */
uint64_t slots_unique(const struct slots *s, unsigned i);
/* Its opcode, for sentences. */
uint32_t slots_opcode(const struct slots *s, unsigned i);
/* Nobody will be asked to execute it again. For a supervisor that has answered it, while no worker
 * lives. */
void slots_clear(const struct slots *s, unsigned i);
/* Forgets what clients have set on all nodes, of the kinds that are true. While no worker lives. */
void slots_reset_attr(const struct slots *s, bool mode, bool uid, bool gid);
/* Whether no slot holds a request, executed or not. While no worker lives. */
bool slots_idle(const struct slots *s);
/* Sum over all slots. */
struct slots_sum {
	uint64_t reads, read_bytes, writes, write_bytes, flushes, discards, others, errors;
};
void slots_sum(const struct slots *s, struct slots_sum *ret);

/*
 * What is worth keeping when no request is in hand and no worker lives: what clients have set and
 * opened, the windows, the counters, what flushes have lost. The rest of a worker's note (`kept`)
 * is not: who closed the image in order left none.
 */
struct slots_carried {
	uint32_t opened;
	int32_t lost[SLOTS_LOST_MAX];
	struct slots_attr attr[SLOTS_NODES_MAX];
	struct slots_windows windows; /* names[0] are in force */
	struct slots_sum sum;
};
void slots_carry(const struct slots *s, struct slots_carried *ret);
/* New memory for n slots with that in it; fd or -errno. */
int slots_create_carried(const struct slots_carried *c, unsigned n);

#endif
