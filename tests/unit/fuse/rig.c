/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rig.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct rig *rig_new(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	assert_non_null(rig);
	rig->config = (struct worker_config){
		.mode = 0600, .uid = 10, .gid = 20, .discard = true, .page_cache = true};
	rig->granted_flags = FUSE_DIRECT_IO_ALLOW_MMAP;
	rig->slots_fd = rig->kernel = rig->device = -1;
	return rig;
}

void rig_log(void *data, int level, int error, uint64_t off, const char *text)
{
	struct rig *rig = data;

	rig->logged++;
	rig->log_error = error;
	rig->log_off = off;
	strcpy(rig->log_text, text);
}

void rig_open_image(struct rig *rig, unsigned slots)
{
	const struct image_options options = {
		.format = "raw", .read_only = rig->image_read_only, .discard = rig->config.discard};
	struct store *store;
	struct diag diag = {};

	assert_int_equal(store_memory_new("memory", RIG_LIMIT, &store), 0);
	assert_int_equal(store_resize(store, RIG_SIZE), 0);
	if (image_open(store, &options, &rig->image, &diag) < 0)
		fail_msg("%s", diag.text);
	rig->slots_fd = slots_create(slots);
	assert_true(rig->slots_fd >= 0);
	rig->granted = (struct session_granted){
		.major = 7, .minor = 39, .flags = rig->granted_flags, .max_write = 1 << 20};
}

void rig_open(struct rig *rig)
{
	struct serve_options options;
	int fd[2];

	rig_open_image(rig, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd), 0);
	rig->kernel = fd[0];
	rig->device = fd[1];
	options = (struct serve_options){.image = rig->image,
					 .config = &rig->config,
					 .granted = &rig->granted,
					 .slots_fd = rig->slots_fd,
					 .thread_fds = &rig->device,
					 .n = 1,
					 .log = rig_log,
					 .log_data = rig};
	assert_int_equal(share_init(&rig->share, &options, NULL), 0);
	request_init(&rig->rq, &rig->share, 0, rig->device);
}

void rig_free(struct rig *rig)
{
	if (rig->rq.share)
		share_done(&rig->share);
	if (rig->image)
		assert_int_equal(image_close(rig->image), 0);
	close(rig->kernel);
	close(rig->device);
	close(rig->slots_fd);
	free(rig);
}

size_t rig_compose(void *buf, uint64_t unique, uint32_t opcode, uint64_t node,
		   struct rig_bytes bytes)
{
	struct fuse_in_header *in = buf;
	uint8_t *p = (uint8_t *)(in + 1);

	*in = (struct fuse_in_header){
		.len = (uint32_t)(sizeof(*in) + bytes.arg_len + bytes.data_len),
		.opcode = opcode,
		.unique = unique,
		.nodeid = node};
	if (bytes.arg_len > 0)
		memcpy(p, bytes.arg, bytes.arg_len);
	if (bytes.data_len > 0)
		memcpy(p + bytes.arg_len, bytes.data, bytes.data_len);
	return in->len;
}

size_t rig_compose_write(void *buf, uint64_t unique, uint64_t off, const char *text)
{
	const struct fuse_write_in in = {.offset = off, .size = (uint32_t)strlen(text)};

	return rig_compose(buf, unique, FUSE_WRITE, 1,
			   (struct rig_bytes){&in, sizeof(in), text, strlen(text)});
}

int rig_answer(struct rig *rig)
{
	struct iovec iov[2] = {{&rig->head, sizeof(rig->head)}, {rig->body, sizeof(rig->body)}};
	struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = 2};
	ssize_t n = recvmsg(rig->kernel, &hdr, MSG_DONTWAIT);

	if (n < 0)
		return RIG_NO_ANSWER;
	assert_true(n >= (ssize_t)sizeof(rig->head));
	assert_int_equal(rig->head.len, n);
	assert_true(rig->head.error <= 0);
	rig->body_len = (size_t)n - sizeof(rig->head);
	if (rig->head.error < 0)
		assert_int_equal(rig->body_len, 0);
	return rig->head.error;
}

static int rig_call_bytes(struct rig *rig, uint32_t opcode, uint64_t node, struct rig_bytes bytes)
{
	uint64_t unique = rig->unique += 2;
	size_t len = rig_compose(rig->rq.buf, unique, opcode, node, bytes);
	int r;

	atomic_store(&rig->rq.slot->state, SLOT_OPEN);
	assert_int_equal(ops_handle(&rig->rq, len), 0);
	r = rig_answer(rig);
	if (r != RIG_NO_ANSWER)
		assert_int_equal(rig->head.unique, unique);
	assert_int_equal(rig_answer(rig), RIG_NO_ANSWER);
	return r;
}

int rig_call(struct rig *rig, uint32_t opcode, uint64_t node, const void *arg, size_t arg_len)
{
	return rig_call_bytes(rig, opcode, node, (struct rig_bytes){arg, arg_len});
}

int rig_write(struct rig *rig, uint64_t node, uint64_t off, const void *data, uint32_t len)
{
	const struct fuse_write_in in = {.offset = off, .size = len};

	return rig_call_bytes(rig, FUSE_WRITE, node,
			      (struct rig_bytes){&in, sizeof(in), data, len});
}

int rig_read(struct rig *rig, uint64_t node, uint64_t off, uint32_t len)
{
	const struct fuse_read_in in = {.offset = off, .size = len};

	return rig_call(rig, FUSE_READ, node, &in, sizeof(in));
}

int rig_getattr(struct rig *rig, uint64_t node, struct fuse_attr *ret)
{
	const struct fuse_getattr_in in = {};
	int r = rig_call(rig, FUSE_GETATTR, node, &in, sizeof(in));

	if (r == 0)
		*ret = RIG_BODY(rig, struct fuse_attr_out)->attr;
	return r;
}
