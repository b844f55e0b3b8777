/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_TEST_RIG_H
#define FUSEIMG_TEST_RIG_H

/* An export of a raw image in memory, with the test in the place of the kernel. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fuse/nodes.h"
#include "fuse/ops.h"

enum {
	RIG_SIZE = 100 * 1024 + 512, /* no multiple of 4096 */
	RIG_LIMIT = 4 << 20,	     /* of the memory behind the image: the host is full there */
	RIG_BODY_MAX = 160 * 1024,
	RIG_NO_ANSWER = 1,
};

struct rig {
	/* before rig_open() */
	struct worker_config config;
	uint64_t granted_flags;
	bool image_read_only;

	struct image *image;
	struct session_granted granted;
	int slots_fd;
	int kernel, device; /* the test's end, and the export's */
	struct share share;
	struct request rq;
	uint64_t unique;

	/* the last answer */
	struct fuse_out_header head;
	uint8_t body[RIG_BODY_MAX];
	size_t body_len;

	/* what was logged */
	unsigned logged;
	int log_error;
	uint64_t log_off;
	char log_text[DIAG_MAX];
};

/* A zeroed rig with the options that most tests want: a writable file target. */
struct rig *rig_new(void);
/* The image, and a request on slot 0. */
void rig_open(struct rig *rig);
/* Only the image and the slots: for serve_start(). */
void rig_open_image(struct rig *rig, unsigned slots);
void rig_free(struct rig *rig);
void rig_log(void *data, int level, int error, uint64_t off, const char *text);

/* What stands behind the header of a request. */
struct rig_bytes {
	const void *arg;
	size_t arg_len;
	const void *data;
	size_t data_len;
};

/* Puts a request into buf; its length. */
size_t rig_compose(void *buf, uint64_t unique, uint32_t opcode, uint64_t node,
		   struct rig_bytes bytes);
/* A WRITE of a text to the root. */
size_t rig_compose_write(void *buf, uint64_t unique, uint64_t off, const char *text);
/* Takes an answer from the socket: its error (<= 0), or RIG_NO_ANSWER. */
int rig_answer(struct rig *rig);
/* Composes, handles, answers. */
int rig_call(struct rig *rig, uint32_t opcode, uint64_t node, const void *arg, size_t arg_len);
int rig_write(struct rig *rig, uint64_t node, uint64_t off, const void *data, uint32_t len);
int rig_read(struct rig *rig, uint64_t node, uint64_t off, uint32_t len);
int rig_getattr(struct rig *rig, uint64_t node, struct fuse_attr *ret);

/* The answer as a struct of exactly that size. */
#define RIG_BODY(rig, type)                                                                        \
	(assert_int_equal((rig)->body_len, sizeof(type)), (const type *)(const void *)(rig)->body)

#endif
