/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session/slots.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
	SLOTS_MAGIC = 0x46534c54, /* "FSLT" */
};

/* tests/fuse has a program that keeps all this in another place, as a later version may */
#ifndef SLOTS_OTHER_LAYOUT
#define SLOTS_OTHER_LAYOUT 0
#endif

const uint32_t slots_version = SLOTS_OTHER_LAYOUT ? 1000 : 2;

enum {
	SLOTS_HEAD_OFF = SLOTS_OTHER_LAYOUT * 3 * SLOT_PAGE,
	SLOTS_START = SLOTS_HEAD_OFF + SLOTS_HEAD_SIZE,
};

_Static_assert(sizeof(struct slots_head) <= SLOTS_HEAD_SIZE, "the head has its pages");
_Static_assert(sizeof(struct slot) <= SLOT_REQUEST_OFF, "the slot ends where the request begins");
_Static_assert(SLOT_WRITE_HEAD == sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in),
	       "the payload of a WRITE begins on a page");
_Static_assert(SLOT_REQUEST_OFF + SLOT_REQUEST_MAX == SLOT_SIZE, "the request fills the slot");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "counters are shared between processes");

static size_t slots_bytes(unsigned n)
{
	return SLOTS_START + (size_t)n * SLOT_SIZE;
}

int slots_create(unsigned n)
{
	_cleanup_close_ int fd = -1;
	struct slots_head head = {.magic = SLOTS_MAGIC, .version = slots_version, .n = n};

	if (n == 0 || n > SLOTS_MAX)
		return -EINVAL;
	fd = memfd_create("fuseimg-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)slots_bytes(n)) < 0)
		return -errno;
	if (pwrite(fd, &head, sizeof(head), SLOTS_HEAD_OFF) != sizeof(head))
		return -EIO;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int slots_map_flags(int fd, int flags, struct slots *ret, struct diag *diag)
{
	struct slots_head *head;
	struct stat st;
	unsigned n;
	void *p;

	if (fstat(fd, &st) < 0)
		return diag_errno(diag, -errno, "request memory");
	if (st.st_size < SLOTS_START || st.st_size > (off_t)slots_bytes(SLOTS_MAX))
		return diag_set(diag, -EBADMSG, "request memory has %lld bytes",
				(long long)st.st_size);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
	if (p == MAP_FAILED)
		return diag_errno(diag, -errno, "mapping the request memory");
	head = (void *)((uint8_t *)p + SLOTS_HEAD_OFF);
	n = head->n;
	if (head->magic != SLOTS_MAGIC || head->version != slots_version || n == 0 ||
	    n > SLOTS_MAX || slots_bytes(n) != (size_t)st.st_size) {
		munmap(p, (size_t)st.st_size);
		return diag_set(diag, -EBADMSG,
				"request memory is of another kind or version of fuseimg");
	}
	*ret = (struct slots){.head = head, .base = p, .n = n};
	return 0;
}

int slots_map(int fd, struct slots *ret, struct diag *diag)
{
	return slots_map_flags(fd, 0, ret, diag);
}

int slots_map_resident(int fd, struct slots *ret, struct diag *diag)
{
	if (slots_map_flags(fd, MAP_LOCKED, ret, NULL) == 0)
		return 0;
	return slots_map_flags(fd, MAP_POPULATE, ret, diag);
}

void slots_unmap(struct slots *s)
{
	if (s->base)
		munmap(s->base, slots_bytes(s->n));
	*s = (struct slots){};
}

static uint8_t *slots_start(const struct slots *s, unsigned i)
{
	assert(i < s->n);
	return s->base + SLOTS_START + (size_t)i * SLOT_SIZE;
}

struct slot *slots_at(const struct slots *s, unsigned i)
{
	return (struct slot *)(void *)slots_start(s, i);
}

void *slots_request(const struct slots *s, unsigned i)
{
	return slots_start(s, i) + SLOT_REQUEST_OFF;
}

uint64_t slots_unique(const struct slots *s, unsigned i)
{
	const struct fuse_in_header *in = slots_request(s, i);

	return __atomic_load_n(&in->unique, __ATOMIC_ACQUIRE);
}

uint32_t slots_opcode(const struct slots *s, unsigned i)
{
	const struct fuse_in_header *in = slots_request(s, i);

	return in->opcode;
}

void slots_clear(const struct slots *s, unsigned i)
{
	struct fuse_in_header *in = slots_request(s, i);

	__atomic_store_n(&in->unique, 0, __ATOMIC_RELEASE);
}

/* What slot i says; the payload only where a request is in hand, since that makes pages. */
static void slots_copy(const struct slots *to, const struct slots *from, unsigned i)
{
	size_t len = slots_unique(from, i) ? SLOT_SIZE : 2 * SLOT_PAGE;

	memcpy(slots_at(to, i), slots_at(from, i), len);
}

int slots_create_from(int fd, unsigned n)
{
	_cleanup_(slots_unmap) struct slots from = {}, to = {};
	_cleanup_close_ int grown = slots_create(n);
	int r;

	if (grown < 0)
		return grown;
	r = slots_map(fd, &from, NULL);
	if (r == 0)
		r = slots_map(grown, &to, NULL);
	if (r == 0 && from.n > n)
		r = -EINVAL;
	if (r < 0)
		return r;
	memcpy(to.head, from.head, sizeof(*to.head));
	to.head->n = n;
	for (unsigned i = 0; i < from.n; i++)
		slots_copy(&to, &from, i);
	return TAKE_FD(grown);
}

void slots_reset_attr(const struct slots *s, bool mode, bool uid, bool gid)
{
	uint32_t bits = (mode ? FATTR_MODE : 0) | (uid ? FATTR_UID : 0) | (gid ? FATTR_GID : 0);

	for (unsigned i = 0; i < SLOTS_NODES_MAX; i++)
		atomic_fetch_and(&s->head->attr[i].set, ~bits);
}

static uint64_t slots_load(const _Atomic uint64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

void slots_sum(const struct slots *s, struct slots_sum *ret)
{
	*ret = (struct slots_sum){};
	for (unsigned i = 0; i < s->n; i++) {
		const struct slot_counters *c = &slots_at(s, i)->counters;

		ret->reads += slots_load(&c->reads);
		ret->read_bytes += slots_load(&c->read_bytes);
		ret->writes += slots_load(&c->writes);
		ret->write_bytes += slots_load(&c->write_bytes);
		ret->flushes += slots_load(&c->flushes);
		ret->discards += slots_load(&c->discards);
		ret->others += slots_load(&c->others);
		ret->errors += slots_load(&c->errors);
	}
}

bool slots_idle(const struct slots *s)
{
	for (unsigned i = 0; i < s->n; i++)
		if (slots_unique(s, i))
			return false;
	return true;
}

/* Whoever wrote this had parsed an image: numbers that lead out of it are cut off. */
static void slots_carry_windows(const struct slots_windows *from, struct slots_windows *to)
{
	const struct slots_names *names = &from->names[atomic_load(&from->live) & 1];
	uint32_t n = atomic_load(&from->n);

	n = n < SLOTS_WINDOWS_MAX ? n : SLOTS_WINDOWS_MAX;
	atomic_store(&to->n, n);
	memcpy(to->windows, from->windows, n * sizeof(to->windows[0]));
	to->names[0].selected = names->selected;
	for (uint32_t i = 0; i < names->n && i < SLOTS_PARTS_MAX; i++)
		if (names->window[i] < n)
			to->names[0].window[to->names[0].n++] = names->window[i];
}

void slots_carry(const struct slots *s, struct slots_carried *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->opened = atomic_load(&s->head->opened);
	memcpy(ret->lost, s->head->kept + SLOTS_KEPT_LOST, sizeof(ret->lost));
	memcpy(ret->attr, s->head->attr, sizeof(ret->attr));
	slots_carry_windows(&s->head->windows, &ret->windows);
	slots_sum(s, &ret->sum);
}

int slots_create_carried(const struct slots_carried *c, unsigned n)
{
	_cleanup_(slots_unmap) struct slots s = {};
	_cleanup_close_ int fd = slots_create(n);
	struct slot_counters *first;
	int r;

	if (fd < 0)
		return fd;
	r = slots_map(fd, &s, NULL);
	if (r < 0)
		return r;
	atomic_store(&s.head->opened, c->opened);
	memcpy(s.head->kept + SLOTS_KEPT_LOST, c->lost, sizeof(c->lost));
	memcpy(s.head->attr, c->attr, sizeof(c->attr));
	memcpy(&s.head->windows, &c->windows, sizeof(c->windows));
	/* Only the sum is ever asked for */
	first = &slots_at(&s, 0)->counters;
	atomic_store(&first->reads, c->sum.reads);
	atomic_store(&first->read_bytes, c->sum.read_bytes);
	atomic_store(&first->writes, c->sum.writes);
	atomic_store(&first->write_bytes, c->sum.write_bytes);
	atomic_store(&first->flushes, c->sum.flushes);
	atomic_store(&first->discards, c->sum.discards);
	atomic_store(&first->others, c->sum.others);
	atomic_store(&first->errors, c->sum.errors);
	return TAKE_FD(fd);
}
