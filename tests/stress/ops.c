/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ops.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/cleanup.h"

const char *const op_names[] = {"read", "write", "zero",   "discard", "allocate",
				"map",	"flush", "resize", "idle"};

/* What the image itself says says more. */
static int op_damage(struct image *img, struct model *m, int r)
{
	if (r == -EUCLEAN && image_damage(img))
		model_wrong(m, "%s", image_damage(img));
	return r;
}

static bool op_read(struct image *img, struct model *m, unsigned thread, const struct op *op)
{
	_cleanup_free_ uint8_t *buf = malloc(op->len);
	struct model_op said;
	int r;

	model_begin(m, thread, &said, MODEL_READ, op->off, op->len);
	r = op_damage(img, m, image_read(img, buf, op->len, op->off));
	return model_end_read(m, thread, &said, r, buf);
}

static bool op_write(struct image *img, struct model *m, unsigned thread, const struct op *op)
{
	_cleanup_free_ uint8_t *buf = malloc(op->len);
	struct model_op said;

	model_begin(m, thread, &said, MODEL_WRITE, op->off, op->len);
	model_fill(&said, buf);
	return model_end(m, thread, &said,
			 op_damage(img, m, image_write(img, buf, op->len, op->off)));
}

static bool op_zero(struct image *img, struct model *m, unsigned thread, const struct op *op)
{
	struct model_op said;
	int r;

	model_begin(m, thread, &said, MODEL_ZERO, op->off, op->len);
	if (op->kind == OP_ZERO)
		r = image_zero(img, op->off, op->len);
	else
		r = image_discard(img, op->off, op->len);
	return model_end(m, thread, &said, op_damage(img, m, r));
}

static bool op_allocate(struct image *img, struct model *m, unsigned thread, const struct op *op)
{
	struct model_op said;

	model_begin(m, thread, &said, MODEL_KEEP, op->off, op->len);
	return model_end(m, thread, &said, image_allocate(img, op->off, op->len));
}

/* Whatever the extent says is to be true: of zeroes that can be told. */
static bool op_map(struct image *img, struct model *m, unsigned thread, const struct op *op)
{
	struct image_extent ext;
	struct model_op said;
	int r;

	model_begin(m, thread, &said, MODEL_READ, op->off, op->len);
	r = image_map(img, op->off, op->len, &ext);
	if (r < 0)
		return model_end(m, thread, &said, r);
	if (ext.off != op->off || ext.len == 0 || ext.len > op->len)
		return model_wrong(m, "map at %llu answers %llu bytes at %llu",
				   (unsigned long long)op->off, (unsigned long long)ext.len,
				   (unsigned long long)ext.off);
	said.len = ext.len - ext.len % m->grain;
	return ext.zero ? model_end_zero(m, thread, &said) : model_end(m, thread, &said, 0);
}

static bool op_flush(struct image *img, struct model *m)
{
	int r = image_flush(img);

	return r == 0 ? true : model_wrong(m, "flush: %d", r);
}

static bool op_idle(struct image *img, struct model *m)
{
	int r = image_idle(img);

	if (r == 0)
		r = image_idle(img);
	return r == 0 ? true : model_wrong(m, "idle: %d", r);
}

static bool op_resize(struct image *img, struct model *m, unsigned thread, const struct op *op)
{
	struct diag diag = {0};
	struct model_op said;
	int r;

	model_begin(m, thread, &said, MODEL_RESIZE, op->off, 0);
	r = image_resize(img, op->off, &diag);
	if (r < 0)
		model_wrong(m, "%s", diag.text);
	return model_end(m, thread, &said, r);
}

bool op_run(struct image *img, struct model *m, unsigned thread, const struct op *op)
{
	switch (op->kind) {
	case OP_READ:
		return op_read(img, m, thread, op);
	case OP_WRITE:
		return op_write(img, m, thread, op);
	case OP_ZERO:
	case OP_DISCARD:
		return op_zero(img, m, thread, op);
	case OP_ALLOCATE:
		return op_allocate(img, m, thread, op);
	case OP_MAP:
		return op_map(img, m, thread, op);
	case OP_FLUSH:
		return op_flush(img, m);
	case OP_RESIZE:
		return op_resize(img, m, thread, op);
	case OP_IDLE:
		return op_idle(img, m);
	}
	return false;
}

uint8_t *op_read_all(struct image *img, struct model *m)
{
	_cleanup_free_ uint8_t *buf = calloc(1, m->max);
	uint64_t size = image_size(img);
	struct model_op said;
	int r;

	model_begin(m, 0, &said, MODEL_READ, 0, size - size % m->grain);
	r = op_damage(img, m, image_read(img, buf, size, 0));
	if (!model_end_read(m, 0, &said, r, buf))
		return NULL;
	model_set(m, buf, size);
	return TAKE_PTR(buf);
}
