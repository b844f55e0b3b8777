/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CHANNEL_H
#define FUSEIMG_CHANNEL_H

/*
 * The socket between supervisor and worker: one SOCK_SEQPACKET pair, one message per packet, file
 * descriptors attached. The worker finds it as CHANNEL_FD. Both ends come from one package and are
 * replaced together, so there is no version negotiation; the supervisor still trusts nothing that a
 * worker says (it may have been taken over by the image it parses): lengths, types and terminators
 * are checked on receipt, and a message out of order ends the worker.
 *
 *   supervisor                              worker
 *   START  config, image fd           ->
 *                                     <-    OPEN  a file the image names (0..CHANNEL_OPENS_MAX)
 *   FILE  fd, or error and sentence   ->
 *                                     <-    OPENED  size and format, or FAILED errno and sentence
 *   (first start only: mount, INIT)
 *   SERVE  slots fd, thread fds       ->
 *                                     <-    SERVING  replay is under way, requests are being served
 *                                     <-    LOG  a sentence for the journal          (at any time)
 *                                     <-    FORBIDDEN  number of a system call that ends the worker
 *   PING                              ->                                   (while it is SERVING)
 *                                     <-    PONG  size of the disk
 *   STOP                              ->
 *                                     <-    CLOSING  no request is served any more
 *                                     <-    DONE  errno of the last flush and close; then it exits
 *
 * CLOSING and DONE also come without STOP when the connection has ended (unmounted from outside).
 * A worker that reads EOF on the socket has lost its supervisor: it finishes the requests in
 * hand, closes the image and exits.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"
#include "session/session.h"

enum {
	CHANNEL_FD = 3,
	CHANNEL_TEXT_MAX = 4096, /* paths and sentences, with the NUL */
	CHANNEL_FDS_MAX = SLOTS_MAX + 1,
	CHANNEL_OPENS_MAX = 64, /* OPENs of one worker: a full chain, each with a data file */
};

/* What a file named by an image is to it; the values of enum image_role (image/image.h), which the
 * supervisor does not know. */
enum channel_role {
	CHANNEL_ROLE_BACKING = 1, /* only to be read */
	CHANNEL_ROLE_DATA = 2,
};

enum channel_type {
	CHANNEL_START = 1,
	CHANNEL_OPEN,
	CHANNEL_FILE,
	CHANNEL_OPENED,
	CHANNEL_FAILED,
	CHANNEL_SERVE,
	CHANNEL_SERVING,
	CHANNEL_LOG,
	CHANNEL_STOP,
	CHANNEL_DONE,
	CHANNEL_PING,
	CHANNEL_PONG,
	CHANNEL_CLOSING,
	CHANNEL_FORBIDDEN,
	CHANNEL_TYPE_END,
};

/* What is to become of the partition table of the disk. */
enum channel_partitions {
	CHANNEL_PARTITIONS_KEEP, /* the partitions are those that the slots tell of */
	CHANNEL_PARTITIONS_NONE,
	CHANNEL_PARTITIONS_READ, /* where there is a table that can be read */
	CHANNEL_PARTITIONS_MUST, /* without one, the image is of no use */
};

/* What a worker must know to serve; in START. */
struct worker_config {
	char format[32];     /* "auto" or a format's name */
	char partition[288]; /* one that is to stand there as "partition"; "": none */
	char snapshot[256];  /* an internal snapshot by id or name; "": the disk as it is now */
	bool read_only;
	bool growable;
	bool discard;	 /* punched space goes back to the host */
	bool directory;	 /* the target is a directory (disk, part*, status); else the file itself */
	bool again;	 /* not the first worker: what the system lacks has been said */
	bool careful;	 /* replay one request after the other: one of them may be poison */
	bool page_cache; /* CACHE=auto: clients may use the page cache on our file */
	uint32_t mode, uid, gid;
	uint32_t threads;
	uint32_t partitions;  /* enum channel_partitions */
	uint64_t table_cache; /* of each file; 0: FORMAT_TABLE_CACHE */
};

/* In OPENED; of PONG only the size has a meaning. */
struct worker_opened {
	char format[32];
	uint64_t size;
	uint32_t unit;
	bool read_only;
};

/* What is not meant by a type is zero. */
struct channel_msg {
	uint32_t type;
	int32_t error;	 /* FILE, FAILED, DONE, LOG: negative errno */
	uint32_t role;	 /* OPEN: enum image_role */
	uint32_t level;	 /* LOG: syslog priority */
	int32_t call;	 /* FORBIDDEN */
	bool writable;	 /* OPEN */
	uint64_t offset; /* LOG: guest offset, UINT64_MAX: none */
	union {
		struct worker_config config;
		struct worker_opened opened;
		struct session_granted granted; /* SERVE */
	};
	/* START: the image's name. OPEN: the name wanted. FILE: the name for people, or the
	 * sentence. FAILED, LOG: the sentence */
	char text[CHANNEL_TEXT_MAX];
	/* OPEN: name of the store that names it. START: the file that the settings come from, which
	 * sentences name; "": -o */
	char parent[CHANNEL_TEXT_MAX];
};

/* Sends msg with n fds (n may be 0). 0 or -errno; -EPIPE: the other end is gone. */
int channel_send(int fd, const struct channel_msg *msg, const int *fds, size_t n);

/*
 * Receives one message and its fds (at most CHANNEL_FDS_MAX into fds, O_CLOEXEC; *ret_n of them,
 * the caller's to close). 1: got one; 0: end of file; negative errno: -EBADMSG for a malformed
 * packet. Blocks unless the fd does not.
 */
int channel_recv(int fd, struct channel_msg *ret, int *fds, size_t *ret_n);

#endif
