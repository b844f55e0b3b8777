/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/state.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/parse.h"
#include "service/state-config.h"
#include "service/state-slots.h"

enum {
	STATE_MAGIC = 0x46535441, /* "FSTA" */
	STATE_VERSION = 2,
	STATE_HALF = 2 << 20, /* 64 files with three paths each, and room */
};

struct state_head {
	uint32_t magic, version;
	uint64_t sequence;
	uint64_t len; /* of the text behind the head */
	uint64_t sum; /* of the sequence and the text */
};

enum {
	STATE_TEXT_MAX = STATE_HALF - sizeof(struct state_head),
};

/* The simple fields, in both directions. */
static const struct state_key {
	const char *key;
	enum { STATE_TEXT, STATE_U32, STATE_U64, STATE_BOOL } kind;
	size_t offset;
	bool needed; /* no export is without it */
} state_keys[] = {
#define KEY(kind, name, field, needed)                                                             \
	{                                                                                          \
		name, kind, offsetof(struct state, field), needed                                  \
	}
	KEY(STATE_U32, "slots_version", slots_version, true),
	KEY(STATE_TEXT, "program", program, true),
	KEY(STATE_BOOL, "syslog", syslog, false),
	KEY(STATE_TEXT, "image", image, true),
	KEY(STATE_TEXT, "target", target, true),
	KEY(STATE_BOOL, "directory", directory, false),
	KEY(STATE_TEXT, "source", source, true),
	KEY(STATE_U64, "dev", dev, true),
	KEY(STATE_TEXT, "entry", entry, false),
	KEY(STATE_U32, "threads", threads, true),
	KEY(STATE_U32, "granted.major", granted.major, true),
	KEY(STATE_U32, "granted.minor", granted.minor, true),
	KEY(STATE_U64, "granted.flags", granted.flags, true),
	KEY(STATE_U32, "granted.max_write", granted.max_write, true),
	KEY(STATE_U32, "granted.max_readahead", granted.max_readahead, true),
	KEY(STATE_U32, "granted.max_pages", granted.max_pages, true),
	KEY(STATE_U64, "opened.size", opened.size, true),
	KEY(STATE_U32, "opened.unit", opened.unit, true),
	KEY(STATE_BOOL, "opened.read_only", opened.read_only, false),
#undef KEY
};

static uint64_t state_sum(uint64_t sequence, const char *text, size_t len)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325) ^ sequence; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		sum = (sum ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
	return sum;
}

int state_create(void)
{
	int fd = memfd_create("fuseimg-state", MFD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Writing. */

struct state_text {
	char *buf;
	size_t len;
	bool full;
};

static void state_put(void *data, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Appends "key=value" and its NUL. */
static void state_put(void *data, const char *key, const char *fmt, ...)
{
	struct state_text *t = data;
	size_t room = STATE_TEXT_MAX - t->len;
	int n = snprintf(t->buf + t->len, room, "%s=", key), m = 0;
	va_list ap;

	if (t->full || n < 0 || (size_t)n >= room) {
		t->full = true;
		return;
	}
	va_start(ap, fmt);
	m = vsnprintf(t->buf + t->len + n, room - (size_t)n, fmt, ap);
	va_end(ap);
	if (m < 0 || (size_t)m >= room - (size_t)n)
		t->full = true;
	else
		t->len += (size_t)(n + m) + 1;
}

static void state_put_field(struct state_text *t, const struct state *s, const struct state_key *k)
{
	const void *field = (const char *)s + k->offset;
	const char *text;

	switch (k->kind) {
	case STATE_TEXT:
		memcpy(&text, field, sizeof(text));
		if (text)
			state_put(t, k->key, "%s", text);
		break;
	case STATE_U32:
		state_put(t, k->key, "%u", *(const uint32_t *)field);
		break;
	case STATE_U64:
		state_put(t, k->key, "%llu", (unsigned long long)*(const uint64_t *)field);
		break;
	case STATE_BOOL:
		state_put(t, k->key, "%d", *(const bool *)field);
		break;
	}
}

static void state_put_crashes(struct state_text *t, const struct crashes *c)
{
	for (unsigned i = 0; i < SLOTS_MAX; i++)
		if (c->held[i].unique)
			state_put(t, "crash.held", "%u %llu %u", i,
				  (unsigned long long)c->held[i].unique, c->held[i].blame);
	/* The oldest first */
	for (unsigned i = 0; i < c->n_recent; i++) {
		unsigned at = (c->next + CRASHES_MAX - c->n_recent + i) % CRASHES_MAX;

		state_put(t, "crash.recent", "%llu", (unsigned long long)c->recent[at]);
	}
}

static void state_put_all(struct state_text *t, const struct state *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_keys); i++)
		state_put_field(t, s, &state_keys[i]);
	state_put(t, "opened.format", "%s", s->opened.format);
	state_config_write(&s->config, state_put, t);
	for (unsigned i = 0; i < s->n_files; i++) {
		const struct files_entry *e = &s->files[i];

		state_put(t, "file", "%u %d", e->role, e->writable);
		state_put(t, "file.parent", "%s", e->parent);
		state_put(t, "file.name", "%s", e->name);
		state_put(t, "file.path", "%s", e->path);
	}
	state_put_crashes(t, &s->crashes);
	if (s->carried)
		state_slots_write(s->carried, state_put, t);
}

/* The head of a half whose text is whole; text (STATE_TEXT_MAX bytes and a NUL) is filled. */
static bool state_read_half(int fd, unsigned half, struct state_head *ret, char *text)
{
	uint64_t off = (uint64_t)half * STATE_HALF;

	if (io_pread(fd, ret, sizeof(*ret), off) != sizeof(*ret) || ret->magic != STATE_MAGIC ||
	    ret->len > STATE_TEXT_MAX)
		return false;
	if (io_pread(fd, text, ret->len, off + sizeof(*ret)) != (ssize_t)ret->len)
		return false;
	text[ret->len] = '\0';
	return ret->sum == state_sum(ret->sequence, text, ret->len);
}

int state_write(int fd, const struct state *state)
{
	_cleanup_free_ char *text = malloc(STATE_TEXT_MAX + 1);
	struct state_text t = {.buf = text};
	struct state_head head[2] = {}, next;
	bool whole[2];
	unsigned half;
	int r;

	if (!text)
		return -ENOMEM;
	for (unsigned i = 0; i < 2; i++)
		whole[i] = state_read_half(fd, i, &head[i], text);
	half = whole[0] && (!whole[1] || head[0].sequence > head[1].sequence);
	state_put_all(&t, state);
	if (t.full)
		return -EFBIG;
	next = (struct state_head){
		.magic = STATE_MAGIC,
		.version = STATE_VERSION,
		.sequence = (whole[!half] ? head[!half].sequence : 0) + 1,
		.len = t.len,
	};
	next.sum = state_sum(next.sequence, text, t.len);
	r = io_pwrite(fd, text, t.len, (uint64_t)half * STATE_HALF + sizeof(next));
	if (r == 0)
		r = io_pwrite(fd, &next, sizeof(next), (uint64_t)half * STATE_HALF);
	return r;
}

/* Reading. */

static int state_take_field(struct state *s, const struct state_key *k, const char *value)
{
	void *field = (char *)s + k->offset;
	char **text = field;
	uint64_t v;
	int r;

	if (k->kind == STATE_TEXT) {
		free(*text);
		*text = strdup(value);
		return *text ? 0 : -ENOMEM;
	}
	r = parse_u64(value,
		      k->kind == STATE_BOOL  ? 1
		      : k->kind == STATE_U32 ? UINT32_MAX
					     : UINT64_MAX,
		      &v);
	if (r < 0)
		return -EBADMSG;
	if (k->kind == STATE_BOOL)
		*(bool *)field = v;
	else if (k->kind == STATE_U32)
		*(uint32_t *)field = (uint32_t)v;
	else
		*(uint64_t *)field = v;
	return 0;
}

static int state_take_file(struct state *s, const char *value)
{
	unsigned role, writable;
	struct files_entry *grown;

	if (sscanf(value, "%u %u", &role, &writable) != 2 || writable > 1 ||
	    s->n_files == CHANNEL_OPENS_MAX)
		return -EBADMSG;
	grown = reallocarray(s->files, s->n_files + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	s->files = grown;
	grown[s->n_files++] = (struct files_entry){.role = role, .writable = writable, .fd = -1};
	return 0;
}

static int state_take_file_text(struct state *s, const char *key, const char *value)
{
	struct files_entry *e = s->n_files ? &s->files[s->n_files - 1] : NULL;
	char **text;

	if (!e)
		return -EBADMSG;
	if (strcmp(key, "file.parent") == 0)
		text = &e->parent;
	else if (strcmp(key, "file.name") == 0)
		text = &e->name;
	else
		text = &e->path;
	free(*text);
	*text = strdup(value);
	return *text ? 0 : -ENOMEM;
}

static int state_take_crash(struct crashes *c, const char *key, const char *value)
{
	unsigned long long v;
	unsigned i, blame;

	if (strcmp(key, "crash.held") == 0) {
		if (sscanf(value, "%u %llu %u", &i, &v, &blame) != 3 || i >= SLOTS_MAX)
			return -EBADMSG;
		c->held[i].unique = v;
		c->held[i].blame = blame;
	} else if (c->n_recent < CRASHES_MAX && sscanf(value, "%llu", &v) == 1) {
		c->recent[c->n_recent++] = v;
		c->next = c->n_recent % CRASHES_MAX;
	} else {
		return -EBADMSG;
	}
	return 0;
}

static bool state_has_prefix(const char *key, const char *prefix)
{
	return strncmp(key, prefix, strlen(prefix)) == 0;
}

static int state_take_slots(struct state *s, const char *key, const char *value)
{
	if (!s->carried)
		s->carried = calloc(1, sizeof(*s->carried));
	return s->carried ? state_slots_take(s->carried, key, value) : -ENOMEM;
}

static int state_take(struct state *s, const char *key, const char *value, struct diag *diag)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_keys); i++)
		if (strcmp(state_keys[i].key, key) == 0)
			return state_take_field(s, &state_keys[i], value);
	if (state_has_prefix(key, STATE_CONFIG_PREFIX))
		return state_config_take(&s->config, key, value, diag);
	if (strcmp(key, "file") == 0)
		return state_take_file(s, value);
	if (state_has_prefix(key, "file."))
		return state_take_file_text(s, key, value);
	if (state_has_prefix(key, "crash."))
		return state_take_crash(&s->crashes, key, value);
	if (state_has_prefix(key, STATE_SLOTS_PREFIX))
		return state_take_slots(s, key, value);
	if (strcmp(key, "opened.format") == 0)
		snprintf(s->opened.format, sizeof(s->opened.format), "%s", value);
	return 0;
}

static int state_parse(struct state *s, char *text, size_t len, struct diag *diag)
{
	for (char *p = text; p < text + len;) {
		char *next = p + strlen(p) + 1, *equals = strchr(p, '=');
		int r;

		if (!equals)
			return diag_set(diag, -EBADMSG, "the saved state is damaged");
		*equals = '\0';
		r = state_take(s, p, equals + 1, diag);
		if (r < 0 && (!diag || !diag->text[0]))
			return diag_errno(diag, r, "the saved state is damaged at \"%s\"", p);
		if (r == -EINVAL) { /* a setting that is not known here */
			diag_prefix(diag, "the saved state is of another version of fuseimg");
			return -EPROTONOSUPPORT;
		}
		if (r < 0)
			return r;
		p = next;
	}
	return 0;
}

/* What every user of the state relies on. */
static int state_check(const struct state *s, struct diag *diag)
{
	for (size_t i = 0; i < ARRAY_SIZE(state_keys); i++) {
		const struct state_key *k = &state_keys[i];
		const void *field = (const char *)s + k->offset;

		if (k->needed && k->kind == STATE_TEXT && !*(char *const *)field)
			return diag_set(diag, -EBADMSG, "the saved state lacks \"%s\"", k->key);
	}
	if (s->threads == 0 || s->threads > SLOTS_MAX)
		return diag_set(diag, -EBADMSG, "the saved state has %u threads", s->threads);
	if (!s->config.image)
		return diag_set(diag, -EBADMSG, "the saved state names no image");
	for (unsigned i = 0; i < s->n_files; i++)
		if (!s->files[i].parent || !s->files[i].name || !s->files[i].path)
			return diag_set(diag, -EBADMSG, "the saved state lacks a file's name");
	return 0;
}

/* The newer one of the halves that are whole. */
static int state_read_text(int fd, char *text, struct state_head *ret, struct diag *diag)
{
	struct state_head head[2];
	bool whole[2];
	unsigned half;

	for (unsigned i = 0; i < 2; i++)
		whole[i] = state_read_half(fd, i, &head[i], text);
	if (!whole[0] && !whole[1])
		return diag_set(diag, -EBADMSG, "the saved state is damaged");
	half = whole[1] && (!whole[0] || head[1].sequence > head[0].sequence);
	if (head[half].version != STATE_VERSION)
		return diag_set(diag, -EPROTONOSUPPORT,
				"the saved state has version %u, this fuseimg knows %d: go on with "
				"the version of fuseimg that wrote it",
				head[half].version, STATE_VERSION);
	(void)state_read_half(fd, half, ret, text);
	return 0;
}

int state_read(int fd, struct state *ret, struct diag *diag)
{
	_cleanup_free_ char *text = malloc(STATE_TEXT_MAX + 1);
	_cleanup_(state_done) struct state s = {};
	struct diag own = {0};
	struct state_head head = {};
	int r;

	if (!text || config_init(&s.config) < 0)
		return diag_errno(diag, -ENOMEM, "the saved state");
	r = state_read_text(fd, text, &head, &own);
	if (r == 0)
		r = state_parse(&s, text, head.len, &own);
	if (r == 0)
		r = state_check(&s, &own);
	if (r < 0)
		return diag_set(diag, r, "%s", own.text);
	*ret = s;
	s = (struct state){};
	return 0;
}

void state_done(struct state *s)
{
	for (unsigned i = 0; i < s->n_files; i++) {
		free(s->files[i].parent);
		free(s->files[i].name);
		free(s->files[i].path);
	}
	free(s->files);
	free(s->program);
	free(s->image);
	free(s->target);
	free(s->source);
	free(s->entry);
	free(s->carried);
	config_done(&s->config);
	*s = (struct state){};
}
