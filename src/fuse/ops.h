/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_OPS_H
#define FUSEIMG_OPS_H

/*
 * One request, from the bytes that were read to the bytes of the answer. ops.c has the table of
 * opcodes and the frame; ops-file.c and ops-tree.c the functions.
 *
 * A request is never trusted: the frame checks its length against the table before a function sees
 * it, and each function checks what varies.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fuse/share.h"
#include "session/abi.h"

enum {
	/* Room for a fixed-size answer behind the fuse_out_header, in the slot */
	OPS_ANSWER_MAX = SLOT_REPLY_MAX - sizeof(struct fuse_out_header),
};

/* One per thread, reused for all its requests. */
struct request {
	struct share *share;
	struct slot *slot;
	void *buf;	  /* the request as it was read, SLOT_REQUEST_MAX bytes */
	uint8_t *payload; /* SLOT_DATA_MAX bytes, page-aligned: what READ answers. The room in buf
			   * where a WRITE has its data */
	int fd;

	/* of the request in hand */
	const struct fuse_in_header *in;
	const void *arg; /* behind the header */
	size_t arg_len;
	void *answer; /* OPS_ANSWER_MAX bytes in the slot, zeroed by request_answer() */
	size_t answer_len;
	size_t payload_len; /* goes out instead of answer */
};

/* A request in slot i of share, answered on fd. */
void request_init(struct request *rq, struct share *share, unsigned i, int fd);

/* Executes the request of len bytes in rq->buf, and answers it. 0, or the errno of an answer that
 * could not be given (-ENOENT, since it was given already, is 0). */
int ops_handle(struct request *rq, size_t len);

/* What the last owner of the slot left: executes it again, or only sends its answer again. */
int ops_replay(struct request *rq);

/* A function of the table: 0, -errno for the client, or OPS_NO_ANSWER. */
typedef int (*ops_fn)(struct request *rq);
enum {
	OPS_NO_ANSWER = 1,
};

/* Zeroed room for the answer. */
#define OPS_ANSWER(rq, type) ((type *)ops_answer(rq, sizeof(type)))
void *ops_answer(struct request *rq, size_t len);

/* What the client is told of an error that the image reported; counts it. */
int ops_failed(struct request *rq, int error);
/* The same, and tells the journal: "reading 4096 bytes: ...". */
int ops_failed_at(struct request *rq, int error, uint64_t off, uint64_t len, const char *what);

void ops_count(_Atomic uint64_t *counter, uint64_t n);

int ops_read(struct request *rq);
int ops_write(struct request *rq);
int ops_fallocate(struct request *rq);
int ops_lseek(struct request *rq);
int ops_fsync(struct request *rq);
int ops_open(struct request *rq);

int ops_lookup(struct request *rq);
int ops_readlink(struct request *rq);
int ops_getattr(struct request *rq);
int ops_setattr(struct request *rq);
int ops_opendir(struct request *rq);
int ops_readdir(struct request *rq);
int ops_readdirplus(struct request *rq);
int ops_statfs(struct request *rq);

#endif
