/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/fault.h"

#include <errno.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/thread.h"

enum { FAULT_OPS = 9, FAULT_SECTOR = 512 };

struct fault_armed {
	struct fault_rule rule;
	uint64_t matched;
};

struct fault {
	struct store store;
	struct store *inner;
	struct mutex lock;
	struct fault_armed rules[FAULT_RULES_MAX] GUARDED_BY(lock);
	size_t n_rules GUARDED_BY(lock);
	uint64_t calls[FAULT_OPS] GUARDED_BY(lock);
	uint64_t failures GUARDED_BY(lock);
};

static struct fault *fault_of(struct store *s)
{
	return (struct fault *)s;
}

static bool fault_matches(const struct fault_rule *rule, enum fault_op op, uint64_t off,
			  uint64_t len)
{
	if (!(rule->ops & op))
		return false;
	if (rule->len == 0)
		return true;
	return off < rule->off + rule->len && rule->off < off + len;
}

/* Counts the call in one rule; true where it is this rule's to fail. */
static bool fault_due(struct fault_armed *armed)
{
	uint64_t n = armed->matched++;
	const struct fault_rule *rule = &armed->rule;

	return n >= rule->skip && (rule->times == 0 || n - rule->skip < rule->times);
}

/* A disk writes a sector or does not. */
static uint64_t fault_half(uint64_t off, uint64_t len)
{
	uint64_t end = round_down(off + len / 2, FAULT_SECTOR);

	return end > off ? end - off : 0;
}

/* 0, or the error of a call; *len is then what is to be done of it before it fails. */
static int fault_check(struct fault *f, enum fault_op op, uint64_t off, uint64_t *len)
{
	const struct fault_rule *hit = NULL;
	uint64_t done = 0;
	int error = 0;

	mutex_lock(&f->lock);
	f->calls[__builtin_ctz(op)]++;
	for (size_t i = 0; i < f->n_rules; i++)
		if (fault_matches(&f->rules[i].rule, op, off, *len) && fault_due(&f->rules[i]) &&
		    !hit)
			hit = &f->rules[i].rule;
	if (hit) {
		f->failures++;
		error = hit->error;
		done = hit->whole ? *len : hit->half ? fault_half(off, *len) : 0;
	}
	mutex_unlock(&f->lock);
	if (error)
		*len = done;
	return error;
}

static void fault_close(struct store *s)
{
	struct fault *f = fault_of(s);

	store_close(f->inner);
	mutex_done(&f->lock);
	free(f);
}

static ssize_t fault_read(struct store *s, void *buf, size_t len, uint64_t off)
{
	struct fault *f = fault_of(s);
	uint64_t todo = len;
	int error = fault_check(f, FAULT_READ, off, &todo);
	ssize_t n = store_read(f->inner, buf, (size_t)todo, off);

	return error ?: n;
}

static int fault_write(struct store *s, const void *buf, size_t len, uint64_t off)
{
	struct fault *f = fault_of(s);
	uint64_t todo = len;
	int error = fault_check(f, FAULT_WRITE, off, &todo);
	int r = store_write(f->inner, buf, (size_t)todo, off);

	return error ?: r;
}

/* A write and a flush, as far as rules and counts go. */
static int fault_write_durable(struct store *s, const void *buf, size_t len, uint64_t off)
{
	struct fault *f = fault_of(s);
	uint64_t todo = len, none = 0;
	int error = fault_check(f, FAULT_WRITE, off, &todo);

	if (!error)
		error = fault_check(f, FAULT_FLUSH, 0, &none);
	if (error)
		return store_write(f->inner, buf, (size_t)todo, off) ?: error;
	return store_write_durable(f->inner, buf, len, off);
}

static int fault_flush(struct store *s)
{
	struct fault *f = fault_of(s);
	uint64_t none = 0;
	int error = fault_check(f, FAULT_FLUSH, 0, &none);

	return error ?: store_flush(f->inner);
}

static int fault_discard(struct store *s, uint64_t off, uint64_t len)
{
	struct fault *f = fault_of(s);
	int error = fault_check(f, FAULT_DISCARD, off, &len);
	int r = store_discard(f->inner, off, len);

	return error ?: r;
}

static int fault_zero(struct store *s, uint64_t off, uint64_t len)
{
	struct fault *f = fault_of(s);
	int error = fault_check(f, FAULT_ZERO, off, &len);
	int r = store_zero(f->inner, off, len);

	return error ?: r;
}

static int fault_allocate(struct store *s, uint64_t off, uint64_t len)
{
	struct fault *f = fault_of(s);
	int error = fault_check(f, FAULT_ALLOCATE, off, &len);
	int r = store_allocate(f->inner, off, len);

	return error ?: r;
}

static int fault_resize(struct store *s, uint64_t size)
{
	struct fault *f = fault_of(s);
	uint64_t old, from, len;
	int r = store_size(f->inner, &old);

	if (r < 0)
		return r;
	from = min_u64(old, size);
	len = max_u64(old, size) - from;
	r = fault_check(f, FAULT_RESIZE, from, &len);
	return r ?: store_resize(f->inner, size);
}

static int fault_map(struct store *s, uint64_t off, uint64_t len, bool *ret_data, uint64_t *ret_len)
{
	struct fault *f = fault_of(s);
	uint64_t unused = len;
	int error = fault_check(f, FAULT_MAP, off, &unused);

	return error ?: store_map(f->inner, off, len, ret_data, ret_len);
}

static int fault_stat(struct store *s, struct store_stat *ret)
{
	struct fault *f = fault_of(s);
	uint64_t none = 0;
	int error = fault_check(f, FAULT_STAT, 0, &none);

	return error ?: store_stat(f->inner, ret);
}

/* No fd: nobody gets round us. */
static const struct store_ops fault_ops = {
	.kind = "fault",
	.close = fault_close,
	.read = fault_read,
	.write = fault_write,
	.write_durable = fault_write_durable,
	.flush = fault_flush,
	.discard = fault_discard,
	.zero = fault_zero,
	.allocate = fault_allocate,
	.resize = fault_resize,
	.map = fault_map,
	.stat = fault_stat,
};

int store_fault_new(struct store *inner, struct store **ret)
{
	_cleanup_store_ struct store *owned = inner;
	_cleanup_free_ struct fault *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	r = store_init(&f->store, &fault_ops, inner->name, inner->read_only);
	if (r < 0)
		return r;
	f->store.fixed = inner->fixed;
	f->store.fixed_size = inner->fixed_size;
	mutex_init(&f->lock);
	f->inner = TAKE_PTR(owned);
	*ret = &TAKE_PTR(f)->store;
	return 0;
}

int store_fault_add(struct store *s, const struct fault_rule *rule)
{
	struct fault *f = fault_of(s);
	int r = -ENOSPC;

	assert(s->ops == &fault_ops);
	assert(rule->error < 0);
	mutex_lock(&f->lock);
	if (f->n_rules < FAULT_RULES_MAX) {
		f->rules[f->n_rules++] = (struct fault_armed){.rule = *rule};
		r = 0;
	}
	mutex_unlock(&f->lock);
	return r;
}

void store_fault_clear(struct store *s)
{
	struct fault *f = fault_of(s);

	assert(s->ops == &fault_ops);
	mutex_lock(&f->lock);
	f->n_rules = 0;
	mutex_unlock(&f->lock);
}

uint64_t store_fault_calls(struct store *s, unsigned ops)
{
	struct fault *f = fault_of(s);
	uint64_t n = 0;

	assert(s->ops == &fault_ops);
	mutex_lock(&f->lock);
	for (unsigned i = 0; i < FAULT_OPS; i++)
		if (ops & 1u << i)
			n += f->calls[i];
	mutex_unlock(&f->lock);
	return n;
}

uint64_t store_fault_failures(struct store *s)
{
	struct fault *f = fault_of(s);
	uint64_t n;

	assert(s->ops == &fault_ops);
	mutex_lock(&f->lock);
	n = f->failures;
	mutex_unlock(&f->lock);
	return n;
}
