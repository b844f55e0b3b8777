/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stack.h"

#include "lend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "store/journal-core.h"

static const char *const scene_names[SCENE_FILES] = {"img", "img.data", "base", "base2"};

void scene_make(struct scene *scene, const struct kind *kind)
{
	*scene = (struct scene){.kind = kind};
	sh("rm -f img* base* raw packed");
	sh("set -e; %s", kind->make);
	for (int i = 0; i < SCENE_FILES; i++)
		if (sh_status("test -e %s", scene_names[i]) == 0)
			store_load(scene_names[i], &scene->files[i]);
	if (kind->flags & KIND_DEVICE) {
		static char old[1 << 16];
		uint64_t size;

		assert_int_equal(store_size(scene->files[0], &size), 0);
		for (uint64_t off = size; off < MIB(4); off += sizeof(old)) {
			pattern(old, sizeof(old), off, 4711);
			assert_int_equal(store_write(scene->files[0], old, sizeof(old), off), 0);
		}
		assert_int_equal(store_resize(scene->files[0], MIB(40)), 0);
	}
}

void scene_done(struct scene *scene)
{
	for (int i = 0; i < SCENE_FILES; i++)
		store_close(scene->files[i]);
}

static int stack_opener(struct image_opener *opener, const char *parent, enum image_role role,
			const char *name, bool writable, struct store **ret, struct diag *diag)
{
	struct stack *s = (struct stack *)opener;

	for (int i = 0; i < SCENE_FILES; i++) {
		struct store *file = i < SCENE_DISKS ? s->disks[i] : s->scene->files[i];

		if (!file || strcmp(name, scene_names[i]) != 0)
			continue;
		*ret = lend_new(file, !writable);
		return 0;
	}
	return diag_set(diag, -ENOENT, "%s: not in the scene", name);
}

/* Takes over the store. */
static void stack_add_disk(struct stack *s, int i, struct store *disk)
{
	if (i == 0 && (s->scene->kind->flags & KIND_DEVICE)) {
		assert_int_equal(store_size(disk, &disk->fixed_size), 0);
		disk->fixed = true;
	}
	if (s->journal)
		assert_int_equal(journal_attach(s->journal, disk, &disk), 0);
	assert_int_equal(store_fault_new(disk, &s->disks[i]), 0);
}

static void stack_init(struct stack *s, const struct scene *scene)
{
	*s = (struct stack){.opener = {.open = stack_opener}, .scene = scene};
}

void stack_start(struct stack *s, const struct scene *scene)
{
	stack_init(s, scene);
	s->journal = journal_new();
	assert_non_null(s->journal);
	for (int i = 0; i < SCENE_DISKS; i++) {
		struct store *copy;

		if (!scene->files[i])
			continue;
		assert_int_equal(journal_copy(scene->files[i], &copy), 0);
		stack_add_disk(s, i, copy);
	}
}

void stack_cut(struct stack *s, size_t k, enum journal_loss loss, uint64_t seed,
	       struct stack *after)
{
	stack_init(after, s->scene);
	after->discard = s->discard;
	for (unsigned i = 0; i < SCENE_DISKS; i++) {
		struct store *disk;
		uint64_t n;

		if (!s->disks[i])
			continue;
		assert_int_equal(journal_cut(s->journal, i, k, loss, seed, &disk), 0);
		stack_add_disk(after, (int)i, disk);
		if (loss != JOURNAL_NTH || !s->disks[1])
			continue;
		assert_int_equal(journal_outcomes(s->journal, i, k, &n), 0);
		seed /= n;
	}
}

uint64_t stack_outcomes(struct stack *s, size_t k)
{
	uint64_t all = 1, n;

	for (unsigned i = 0; i < SCENE_DISKS; i++) {
		if (!s->disks[i])
			continue;
		assert_int_equal(journal_outcomes(s->journal, i, k, &n), 0);
		if (__builtin_mul_overflow(all, n, &all))
			return UINT64_MAX;
	}
	return all;
}

void stack_record(struct stack *s)
{
	s->journal = journal_new();
	assert_non_null(s->journal);
	for (int i = 0; i < SCENE_DISKS; i++)
		if (s->disks[i])
			stack_add_disk(s, i, s->disks[i]);
}

void stack_done(struct stack *s)
{
	assert_null(s->img);
	for (int i = 0; i < SCENE_DISKS; i++)
		store_close(s->disks[i]);
	journal_free(s->journal);
}

int stack_try_open(struct stack *s, bool read_only, struct diag *diag)
{
	struct image_options options = {
		.format = "qcow2",
		.read_only = read_only,
		.discard = s->discard,
		.again = !read_only && s->killed,
		.opener = &s->opener,
	};
	int r = image_open(lend_new(s->disks[0], read_only), &options, &s->img, diag);

	if (r == 0 && !read_only)
		image_keep(s->img, &s->kept);
	return r;
}

void stack_open(struct stack *s, bool read_only)
{
	struct diag diag = {0};

	if (stack_try_open(s, read_only, &diag) < 0)
		fail_msg("%s: %s", s->where, diag.text);
}

bool stack_lost(struct stack *s)
{
	struct image *img = s->img;

	return img && (lend_lost(img->store) < 0 || lend_lost(img->data) < 0);
}

int stack_close(struct stack *s)
{
	int r = image_close(s->img);

	s->img = NULL;
	s->kept = (struct image_kept){0};
	s->killed = false;
	return r;
}

/* Closing cannot do anything but give up. */
void stack_kill(struct stack *s)
{
	struct fault_rule all = {.ops = ~0u, .error = -EIO};
	struct image_kept kept = s->kept;

	for (int i = 0; i < SCENE_DISKS; i++)
		if (s->disks[i])
			assert_int_equal(store_fault_add(s->disks[i], &all), 0);
	stack_close(s);
	s->kept = kept;
	s->killed = true;
	for (int i = 0; i < SCENE_DISKS; i++)
		if (s->disks[i])
			store_fault_clear(s->disks[i]);
}

static void stack_found(struct check *check, bool leak, uint64_t n, const char *text)
{
	struct stack *s = check->data;

	if (!leak && !s->found[0])
		snprintf(s->found, sizeof(s->found), "%s", text);
}

void stack_check(struct stack *s, enum check_repair repair, struct check *ret)
{
	struct diag diag = {0};

	*ret = (struct check){.repair = repair, .data = s, .found = stack_found};
	s->found[0] = 0;
	if (image_check(s->disks[0], "qcow2", ret, &diag) < 0)
		fail_msg("%s: %s", s->where, diag.text);
}

void stack_dump(struct stack *s)
{
	store_dump(s->disks[0], "after");
	if (s->disks[1])
		store_dump(s->disks[1], "img.data");
}

void stack_dump_guest(struct stack *s)
{
	_cleanup_store_ struct store *guest = NULL;
	uint64_t size = round_down(image_size(s->img), JOURNAL_SECTOR);
	_cleanup_free_ void *all = malloc(size + 1);

	assert_int_equal(image_read(s->img, all, size, 0), 0);
	assert_int_equal(store_memory_from("guest", all, size, INT64_MAX, &guest), 0);
	store_dump(guest, "guest");
}
