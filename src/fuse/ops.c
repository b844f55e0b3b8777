/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/ops.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

struct op {
	ops_fn run;	/* NULL: answered with error */
	uint32_t min;	/* bytes behind the header, at least */
	uint16_t error; /* positive; 0: ENOSYS */
	/* Executing it again after it was answered would do harm: the answer is kept (slots.h) */
	bool changes;
	bool counts; /* has a counter of its own */
};

/* Nothing is held for a node or an open file, so there is nothing to let go. */
static int ops_nothing(struct request *rq)
{
	return 0;
}

/*
 * FORGET is never answered, and INTERRUPT need not be: the request that it speaks of is executed to
 * its end, which no client of a disk has to wait for long.
 */
static int ops_ignore(struct request *rq)
{
	return OPS_NO_ANSWER;
}

/*
 * What is not here is answered with ENOSYS: the kernel then stops asking and does without (FLUSH,
 * the xattrs, ACCESS, STATX, POLL, COPY_FILE_RANGE). So ENOSYS is for a whole opcode, never for one
 * node.
 */
static const struct op ops_table[ABI_OP_MAX] = {
	[FUSE_READ] = {ops_read, sizeof(struct fuse_read_in), .counts = true},
	[FUSE_WRITE] = {ops_write, sizeof(struct fuse_write_in), .changes = true, .counts = true},
	[FUSE_FALLOCATE] = {ops_fallocate, sizeof(struct fuse_fallocate_in), .changes = true},
	[FUSE_LSEEK] = {ops_lseek, sizeof(struct fuse_lseek_in)},
	[FUSE_FSYNC] = {ops_fsync, sizeof(struct fuse_fsync_in), .counts = true},
	[FUSE_OPEN] = {ops_open, sizeof(struct fuse_open_in)},
	[FUSE_RELEASE] = {ops_nothing},

	[FUSE_LOOKUP] = {ops_lookup, 1},
	[FUSE_READLINK] = {ops_readlink},
	[FUSE_FORGET] = {ops_ignore},
	[FUSE_BATCH_FORGET] = {ops_ignore},
	[FUSE_GETATTR] = {ops_getattr, sizeof(struct fuse_getattr_in)},
	[FUSE_SETATTR] = {ops_setattr, sizeof(struct fuse_setattr_in), .changes = true},
	[FUSE_STATFS] = {ops_statfs},
	[FUSE_OPENDIR] = {ops_opendir, sizeof(struct fuse_open_in)},
	[FUSE_READDIR] = {ops_readdir, sizeof(struct fuse_read_in)},
	[FUSE_READDIRPLUS] = {ops_readdirplus, sizeof(struct fuse_read_in)},
	[FUSE_RELEASEDIR] = {ops_nothing},
	[FUSE_FSYNCDIR] = {ops_nothing},

	[FUSE_INTERRUPT] = {ops_ignore},
	[FUSE_NOTIFY_REPLY] = {ops_ignore},
	[FUSE_DESTROY] = {ops_nothing},
	[ABI_OP_SYNCFS] = {ops_fsync},

	[FUSE_IOCTL] = {.error = ENOTTY},
	[FUSE_SYMLINK] = {.error = EPERM},
	[FUSE_MKNOD] = {.error = EPERM},
	[FUSE_MKDIR] = {.error = EPERM},
	[FUSE_UNLINK] = {.error = EPERM},
	[FUSE_RMDIR] = {.error = EPERM},
	[FUSE_RENAME] = {.error = EPERM},
	[FUSE_RENAME2] = {.error = EPERM},
	[FUSE_LINK] = {.error = EPERM},
	[FUSE_CREATE] = {.error = EPERM},
	[ABI_OP_TMPFILE] = {.error = EPERM},
};

/*
 * An answer goes out in one piece (vectors cost write(2) a few percent of a small read), so its
 * header stands before the payload: over the end of the request in hand, which has nothing there
 * that we look at, and could still be executed again.
 */
_Static_assert(sizeof(struct fuse_in_header) + offsetof(struct fuse_read_in, lock_owner) <=
		       SLOT_WRITE_HEAD - sizeof(struct fuse_out_header),
	       "what is read does not overwrite the request to read it");

void request_init(struct request *rq, struct share *share, unsigned i, int fd)
{
	uint8_t *buf = slots_request(&share->slots, i);

	*rq = (struct request){
		.share = share,
		.slot = slots_at(&share->slots, i),
		.buf = buf,
		.payload = buf + SLOT_WRITE_HEAD,
		.fd = fd,
	};
}

void *ops_answer(struct request *rq, size_t len)
{
	assert(len <= OPS_ANSWER_MAX);
	rq->answer_len = len;
	return memset(rq->answer, 0, len);
}

/* Only the slot's own thread writes its counters, so this need not be a locked instruction. */
void ops_count(_Atomic uint64_t *counter, uint64_t n)
{
	uint64_t v = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, v + n, memory_order_relaxed);
}

int ops_failed(struct request *rq, int error)
{
	ops_count(&rq->slot->counters.errors, 1);
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
	case -EROFS:
	case -ENOMEM:
		return error;
	default:
		/* A client of a disk understands this; EUCLEAN and others are for the journal */
		return -EIO;
	}
}

int ops_failed_at(struct request *rq, int error, uint64_t off, uint64_t len, const char *what)
{
	const char *damage = error == -EUCLEAN ? image_damage(rq->share->image) : NULL;

	share_log(rq->share, error, off, "%s%s%s %llu bytes", damage ?: "", damage ? ": " : "",
		  what, (unsigned long long)len);
	return ops_failed(rq, error);
}

/* Errors of the answer itself that are nobody's fault: it was given before, or nobody waits. */
static int ops_sent(ssize_t n)
{
	if (n >= 0 || errno == ENOENT || errno == ENODEV)
		return 0;
	return -errno;
}

static int ops_send_error(struct request *rq, uint64_t unique, int error)
{
	struct fuse_out_header out = {.len = sizeof(out), .error = error, .unique = unique};

	return ops_sent(write(rq->fd, &out, sizeof(out)));
}

/* The answer of rq->slot->reply, or the payload with that header. */
static int ops_send(struct request *rq)
{
	const struct fuse_out_header *reply = (void *)rq->slot->reply;
	struct fuse_out_header *out = (void *)rq->slot->reply;
	uint32_t len = rq->slot->reply_len;
	int r;

	if (rq->payload_len > 0) {
		out = (void *)(rq->payload - sizeof(*out));
		*out = *reply;
		len = (uint32_t)(sizeof(*out) + rq->payload_len);
	}
	out->len = len;
	r = ops_sent(write(rq->fd, out, len));
	if (r == 0)
		return 0;
	/* What cannot be said must not leave the client waiting */
	share_log(rq->share, r, UINT64_MAX, "answering with %u bytes", len);
	return ops_send_error(rq, reply->unique, -EIO);
}

/* The function of a well-formed request; else the error. */
static int ops_find(const struct request *rq, size_t len, const struct op **ret)
{
	const struct op *op;

	if (rq->in->opcode >= ABI_OP_MAX)
		return -ENOSYS;
	op = &ops_table[rq->in->opcode];
	if (!op->run)
		return op->error ? -(int)op->error : -ENOSYS;
	if (rq->in->len != len || rq->arg_len < op->min)
		return -EIO;
	*ret = op;
	return 0;
}

static void ops_prepare(struct request *rq, size_t len)
{
	rq->in = rq->buf;
	rq->arg = rq->in + 1;
	rq->arg_len = len - sizeof(*rq->in);
	rq->answer = rq->slot->reply + sizeof(struct fuse_out_header);
	rq->answer_len = rq->payload_len = 0;
}

int ops_handle(struct request *rq, size_t len)
{
	struct fuse_out_header *out = (void *)rq->slot->reply;
	const struct op *op = NULL;
	int r;

	if (len < sizeof(*rq->in))
		return -EBADMSG;
	ops_prepare(rq, len);
	r = ops_find(rq, len, &op);
	if (!op || !op->counts)
		ops_count(&rq->slot->counters.others, 1);
	if (op)
		r = op->run(rq);
	if (r == OPS_NO_ANSWER)
		return 0;
	if (r < 0)
		rq->answer_len = rq->payload_len = 0;
	*out = (struct fuse_out_header){.error = r, .unique = rq->in->unique};
	rq->slot->reply_len = (uint32_t)(sizeof(*out) + rq->answer_len);
	if (op && op->changes)
		atomic_store_explicit(&rq->slot->state, SLOT_DONE, memory_order_release);
	return ops_send(rq);
}

int ops_replay(struct request *rq)
{
	const struct fuse_in_header *in = rq->buf;

	if (in->unique == 0)
		return 0;
	if (atomic_load_explicit(&rq->slot->state, memory_order_acquire) == SLOT_DONE) {
		const struct fuse_out_header *out = (void *)rq->slot->reply;

		if (rq->slot->reply_len < sizeof(*out) || rq->slot->reply_len > SLOT_REPLY_MAX ||
		    out->unique != in->unique)
			return ops_send_error(rq, in->unique, -EIO);
		rq->payload_len = 0;
		return ops_send(rq);
	}
	if (in->len < sizeof(*in) || in->len > SLOT_REQUEST_MAX)
		return ops_send_error(rq, in->unique, -EIO);
	return ops_handle(rq, in->len);
}
