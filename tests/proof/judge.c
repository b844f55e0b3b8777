/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "judge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "format/qcow2-disk.h"

enum {
	JUDGE_STEPS = 6,    /* of work after a cut */
	JUDGE_CONTINUE = 4, /* one state in so many goes on */
	JUDGE_AGAIN = 64,   /* ... is cut again while it does */
	JUDGE_QEMU = 96,    /* ... is judged by QEMU, or FUSEIMG_PROOF_QEMU=N */
	JUDGE_DEEPEST = 2,
};

/* Of a driver's reservation, at most, and some more. */
#define JUDGE_RESERVED MIB(288)
/* What a killed process leaves, whose reservation the next one has: see qcow2-free.c. */
#define JUDGE_KILLED MIB(16)

struct tally tally;

void tally_print(const char *what)
{
	print_message("%s: %lu lives, %lu states (%lu went on, %lu were cut again, %lu judged by "
		      "QEMU), %lu of %lu windows in full, at most %llu KiB leaked\n",
		      what, tally.trials, tally.states, tally.continued, tally.cut_again,
		      tally.by_qemu, tally.whole, tally.windows, tally.leaks_most >> 10);
}

/* Is it the turn of a state to be judged by QEMU? That takes its time. */
static bool judge_is_for_qemu(const struct check *check)
{
	const char *asked = getenv("FUSEIMG_PROOF_QEMU");
	unsigned long every = asked ? strtoul(asked, NULL, 10) : JUDGE_QEMU;

	return every > 0 && tally.states % every == 0 && !check->marked_dirty;
}

static void trial_begin(struct trial *t, uint64_t seed)
{
	t->seed = seed;
	t->stack.discard = seed % 2;
	t->work = (struct work){
		.stack = &t->stack, .guest = &t->guest, .seed = seed * 7919 + 1, .n_threads = 1};
	tally.trials++;
}

void trial_prepare(struct trial *t, const struct scene *scene, uint64_t seed)
{
	*t = (struct trial){.name = scene->kind->name};
	stack_start(&t->stack, scene);
	snprintf(t->stack.where, sizeof(t->stack.where), "%s, seed %llu", t->name,
		 (unsigned long long)seed);
	stack_open(&t->stack, true);
	guest_init(&t->guest, t->stack.journal, t->stack.img, WORK_AREA);
	assert_int_equal(stack_close(&t->stack), 0);
	trial_begin(t, seed);
}

void trial_start(struct trial *t, const struct scene *scene, uint64_t seed)
{
	trial_prepare(t, scene, seed);
	stack_open(&t->stack, false);
}

void trial_done(struct trial *t)
{
	if (t->stack.img)
		assert_int_equal(stack_close(&t->stack), 0);
	stack_done(&t->stack);
	guest_done(&t->guest);
}

static void judge_tables(struct trial *t, struct stack *after, struct check *ret)
{
	/* Per cut what is reserved, 256 MiB at most after requests as quick as ours, and what was
	 * replaced */
	uint64_t most = (t->depth + 1) * JUDGE_RESERVED + t->work.kills * JUDGE_KILLED;

	stack_check(after, CHECK_ONLY, ret);
	if (ret->corruptions > 0 && !ret->marked_dirty)
		fail_msg("%s: %llu corruptions: %s", after->where,
			 (unsigned long long)ret->corruptions, after->found);
	if (ret->leaks * ret->unit > most)
		fail_msg("%s: %llu leaks", after->where, (unsigned long long)ret->leaks);
	tally.leaks_most = max_u64(tally.leaks_most, ret->leaks * ret->unit);
}

/* Bitmaps that say they are right. */
struct judge_claims {
	bool content; /* of one that follows writes */
	bool size;    /* of any */
};

static int judge_bitmap(void *data, const struct format_bitmap *b)
{
	struct judge_claims *claims = data;

	claims->content |= !b->in_use && b->automatic;
	claims->size |= !b->in_use;
	return 0;
}

/* A bitmap that is not marked as in use says that nothing was written since it was made, if it
 * follows writes; and any that the disk has the size that it was made for. */
static void judge_bitmaps(struct trial *t, struct stack *after)
{
	struct diag diag = {0};
	struct judge_claims claims = {0};
	uint8_t autoclear[8];
	char why[200];

	if (!(after->scene->kind->flags & KIND_BITMAP) || t->depth > 0)
		return;
	assert_int_equal(store_read_full(after->disks[0], autoclear, sizeof(autoclear),
					 offsetof(struct qcow2_disk_header, autoclear_features)),
			 0);
	if (!(be64_get(autoclear) & QCOW2_AUTOCLEAR_BITMAPS))
		return;
	stack_open(after, true);
	assert_int_equal(after->img->format->bitmaps(after->img, judge_bitmap, &claims, &diag), 0);
	if (claims.content && !guest_accepts(&t->guest, after->img, 0, why, sizeof(why)))
		fail_msg("%s: a bitmap lies: %s", after->where, why);
	if (claims.size && image_size(after->img) != KIND_SIZE)
		fail_msg("%s: a bitmap is for another size", after->where);
	stack_close(after);
}

static void judge_guest(struct stack *after, struct guest *g, size_t k)
{
	char why[200];

	if (!guest_accepts(g, after->img, k, why, sizeof(why)))
		fail_msg("%s: %s", after->where, why);
	if (image_damage(after->img))
		fail_msg("%s: %s", after->where, image_damage(after->img));
}

void trial_verify(struct trial *t)
{
	judge_guest(&t->stack, &t->guest, GUEST_NOW);
}

/* QEMU finds leaks at most, and the same disk. */
static void judge_by_qemu(struct stack *after)
{
	stack_dump(after);
	if (sh_status("qemu-img check -f qcow2 after >check.out 2>&1; test $? = 0 -o $? = 3") !=
	    0) {
		sh_status("grep -v Leaked check.out | head -5");
		fail_msg("%s: qemu-img check", after->where);
	}
	stack_open(after, true);
	stack_dump_guest(after);
	stack_close(after);
	if (sh_status("qemu-img compare -q -f qcow2 -F raw after guest 2>/dev/null") != 0)
		fail_msg("%s: QEMU sees another disk", after->where);
	tally.by_qemu++;
}

/* Refcounts may be raised behind the end of the file, where no check looks until it has grown. */
static uint64_t judge_all_leaks(struct stack *after)
{
	struct store *disk = after->disks[0];
	struct check check;
	uint64_t size;

	if (disk->fixed)
		return UINT64_MAX;
	assert_int_equal(store_size(disk, &size), 0);
	assert_int_equal(store_resize(disk, size + JUDGE_RESERVED), 0);
	stack_check(after, CHECK_ONLY, &check);
	assert_int_equal(store_resize(disk, size), 0);
	return check.marked_dirty ? UINT64_MAX : check.leaks;
}

/* Work after a cut. A small device may be full of what was leaked. */
static void judge_work(struct work *w)
{
	bool device = w->stack->scene->kind->flags & KIND_DEVICE;

	for (int i = 0; i < JUDGE_STEPS; i++) {
		int r = work_step(w);

		if (r < 0 && !(r == -ENOSPC && device))
			fail_msg("%s: request %d afterwards failed with %d", w->stack->where, i, r);
	}
}

/* Work on the image as it was found, and its orderly end. */
static void judge_going_on(struct trial *t, struct stack *after, uint64_t leaks, uint64_t seed)
{
	struct guest g;
	struct work w = {.stack = after, .guest = &g, .seed = seed, .n_threads = 1};
	struct check check;

	guest_init(&g, NULL, after->img, WORK_AREA);
	judge_work(&w);
	judge_guest(after, &g, GUEST_NOW);
	if (stack_close(after) < 0)
		fail_msg("%s: closing afterwards failed", after->where);
	judge_tables(t, after, &check);
	if (check.marked_dirty || check.leaks > leaks)
		fail_msg("%s: %llu leaks, and %llu after work and an orderly end", after->where,
			 (unsigned long long)leaks, (unsigned long long)check.leaks);
	if (seed % 4 == 0) {
		stack_check(after, CHECK_REPAIR_LEAKS, &check);
		if (check.leaks > 0)
			fail_msg("%s: leaks that cannot be repaired", after->where);
	}
	stack_open(after, false);
	judge_guest(after, &g, GUEST_NOW);
	guest_done(&g);
	tally.continued++;
}

/* The power goes once more. Takes the disks of after, which is not open. */
static void judge_again(struct trial *t, struct stack *after, uint64_t seed)
{
	struct trial again = {.name = t->name, .depth = t->depth + 1, .stack = *after};
	struct stack *s = &again.stack;

	*after = (struct stack){.scene = s->scene};
	stack_record(s);
	stack_open(s, true);
	guest_init(&again.guest, s->journal, s->img, WORK_AREA);
	assert_int_equal(stack_close(s), 0);
	trial_begin(&again, seed);
	again.work.lives = true;
	stack_open(s, false);
	judge_work(&again.work);
	for (int i = 0; i < JUDGE_STEPS; i++)
		trial_judge_random(&again, journal_length(s->journal), &seed);
	trial_done(&again);
	tally.cut_again++;
}

void trial_judge(struct trial *t, size_t k, enum journal_loss loss, uint64_t seed)
{
	static unsigned long n;
	uint64_t leaks = 0;
	struct stack after;
	struct check check;

	tally.states++;
	n++;
	stack_cut(&t->stack, k, loss, seed, &after);
	snprintf(after.where, sizeof(after.where), "%.300s, cut %zu of %zu, loss %d, %llu",
		 t->stack.where, k, journal_length(t->stack.journal), loss,
		 (unsigned long long)seed);
	judge_tables(t, &after, &check);
	judge_bitmaps(t, &after);
	if (judge_is_for_qemu(&check))
		judge_by_qemu(&after);
	if (n % JUDGE_CONTINUE == 0)
		leaks = judge_all_leaks(&after);
	stack_open(&after, false);
	judge_guest(&after, &t->guest, k);
	if (n % JUDGE_CONTINUE == 0)
		judge_going_on(t, &after, leaks, seed + k);
	stack_close(&after);
	if (n % JUDGE_AGAIN == 1 && t->depth < JUDGE_DEEPEST)
		judge_again(t, &after, seed + k);
	stack_done(&after);
}

void trial_judge_now(struct trial *t)
{
	struct check check;
	uint64_t leaks;

	tally.states++;
	judge_tables(t, &t->stack, &check);
	leaks = judge_all_leaks(&t->stack);
	if (judge_is_for_qemu(&check))
		judge_by_qemu(&t->stack);
	stack_open(&t->stack, false);
	trial_verify(t);
	judge_going_on(t, &t->stack, leaks, t->seed);
	stack_close(&t->stack);
}

void trial_judge_random(struct trial *t, size_t n, uint64_t *seed)
{
	static const enum journal_loss losses[] = {JOURNAL_TORN, JOURNAL_DROP, JOURNAL_TORN,
						   JOURNAL_LOSE};
	struct journal *j = t->stack.journal;
	size_t k = (size_t)(random_next(seed) % (n + 1));

	/* Just before a flush most is in flight */
	if (random_next(seed) % 2)
		while (k < n && journal_at(j, k)->kind != JOURNAL_FLUSH)
			k++;
	trial_judge(t, k, losses[random_next(seed) % ARRAY_SIZE(losses)], random_next(seed));
}

void trial_judge_many(struct trial *t, unsigned cuts)
{
	size_t end = journal_length(t->stack.journal);
	uint64_t seed = t->seed + 1;

	for (unsigned i = 0; i < cuts; i++)
		trial_judge_random(t, end, &seed);
	trial_judge(t, end, JOURNAL_KEEP, 0);
}
