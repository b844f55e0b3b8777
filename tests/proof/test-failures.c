/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The host fails: each call of a life once, with each error. The request that was hit fails or does
 * not, with that error; nothing else is lost by it, what comes later works, and the image is sound
 * at the end, and after a power cut at any moment.
 *
 * A failed flush is more: what it was to write may be lost for good. So no flush succeeds from then
 * on until the image is opened again, and nothing that was not durable before is taken for durable.
 */

#include "proof.h"

#include <errno.h>

#include "base/checked.h"

enum {
	STEPS = 12, /* before it is closed or killed and opened again, and after */
	CUTS = 3,
	CUTS_LOST = 8,
};

struct failure {
	unsigned disk;
	struct fault_rule rule; /* what fails; without ops: the flush below */
	uint64_t flush;
};

struct failing {
	struct trial trial;
	const struct failure *failure;
	uint64_t calls[SCENE_DISKS][9]; /* by kind */
	size_t end; /* records before it was closed, or not opened, after a failed flush; what comes
		       then builds on what the host has forgotten to write */
	unsigned failed;
};

/* A request has failed: it must be by that failure. */
static void expect(struct failing *f, int r, bool lost)
{
	const struct failure *failure = f->failure;

	f->failed++;
	if (!failure)
		fail_msg("%s: a request failed with %d", f->trial.stack.where, r);
	if (r != (failure->rule.ops ? failure->rule.error : -EIO) && !(lost && r == -EIO))
		fail_msg("%s: a request failed with %d", f->trial.stack.where, r);
	if (f->failed > 1 && !lost)
		fail_msg("%s: more than one request failed", f->trial.stack.where);
}

static void work(struct failing *f)
{
	struct stack *s = &f->trial.stack;

	for (int i = 0; i < STEPS; i++) {
		int r = work_step(&f->trial.work);

		if (r < 0)
			expect(f, r, stack_lost(s));
	}
	/* Else reading it all would be what fails */
	if (f->failed > 0)
		trial_verify(&f->trial);
	if (work_flush(&f->trial.work) == 0 && stack_lost(s))
		fail_msg("%s: a flush succeeds after one that failed", s->where);
}

static void open_image(struct failing *f)
{
	struct stack *s = &f->trial.stack;
	struct diag diag = {0};
	int r = stack_try_open(s, false, &diag);

	if (r == 0)
		return;
	expect(f, r, true);
	if (s->killed && (f->failure->rule.ops & ~(unsigned)FAULT_FLUSH) == 0)
		fail_msg("%s: a flush that failed is no reason not to go on: %s", s->where,
			 diag.text);
	if (!f->failure->rule.ops)
		f->end = min_u64(f->end, journal_length(s->journal));
	if (!diag.text[0])
		fail_msg("%s: opening fails without a word", s->where);
	stack_open(s, false);
}

static void close_image(struct failing *f)
{
	struct stack *s = &f->trial.stack;
	bool lost = stack_lost(s);
	int r = work_close(&f->trial.work);

	if (r < 0)
		expect(f, r, true);
	else if (lost)
		fail_msg("%s: closed in order after a failed flush", s->where);
	if (r < 0 && f->end == SIZE_MAX && (!f->failure->rule.ops || lost))
		f->end = journal_length(s->journal);
}

/* After `done` calls of that kind. */
static void arm(struct failing *f, uint64_t done)
{
	const struct failure *failure = f->failure;
	struct fault_rule rule = failure ? failure->rule : (struct fault_rule){0};

	if (!rule.ops || rule.skip < done)
		return;
	rule.skip -= done;
	assert_int_equal(store_fault_add(f->trial.stack.disks[failure->disk], &rule), 0);
}

/* Who comes next knows of a flush that failed. */
static void kill_image(struct failing *f)
{
	struct stack *s = &f->trial.stack;
	bool lost = stack_lost(s);
	uint64_t done = 0;

	if (f->failure)
		done = store_fault_calls(s->disks[f->failure->disk], f->failure->rule.ops);
	stack_kill(s);
	arm(f, done);
	open_image(f);
	if (lost && !stack_lost(s))
		fail_msg("%s: who comes after a kill has forgotten a failed flush", s->where);
}

/* A request that failed has left one of two contents: perhaps the other one, now that the tables
 * are read again. What comes next is written into that one. */
static void look_again(struct failing *f)
{
	if (f->failed == 0)
		return;
	trial_verify(&f->trial);
	guest_observe(&f->trial.guest, f->trial.stack.img);
}

static void count(struct failing *f)
{
	for (int i = 0; i < SCENE_DISKS; i++)
		for (unsigned op = 0; op < 9 && f->trial.stack.disks[i]; op++)
			f->calls[i][op] = store_fault_calls(f->trial.stack.disks[i], 1u << op);
}

/* One life, in which that happens; NULL: nothing. */
static void live(struct failing *f, const struct scene *scene, uint64_t seed,
		 const struct failure *failure)
{
	struct trial *t = &f->trial;
	uint64_t cuts = seed + 1;

	*f = (struct failing){.failure = failure, .end = SIZE_MAX};
	trial_prepare(t, scene, seed);
	if (failure)
		snprintf(t->stack.where, sizeof(t->stack.where),
			 "%s, seed %llu, disk %u, failure %d of kinds 0x%x%s after %llu",
			 scene->kind->name, (unsigned long long)seed, failure->disk,
			 failure->rule.error, failure->rule.ops,
			 failure->rule.half    ? ", half"
			 : failure->rule.whole ? ", whole"
					       : "",
			 (unsigned long long)(failure->rule.skip + failure->flush));
	arm(f, 0);
	if (failure && !failure->rule.ops)
		journal_fail_flush(t->stack.journal, failure->flush);
	open_image(f);
	work(f);
	if (seed % 2) {
		kill_image(f);
	} else {
		close_image(f);
		if (f->end == SIZE_MAX)
			open_image(f);
	}
	if (t->stack.img) {
		look_again(f);
		work(f);
		close_image(f);
	}
	count(f);
	for (int i = 0; i < SCENE_DISKS; i++)
		if (t->stack.disks[i])
			store_fault_clear(t->stack.disks[i]);
	journal_fail_flush(t->stack.journal, UINT64_MAX); /* it may not have come to it */
	f->end = min_u64(f->end, journal_length(t->stack.journal));
	trial_judge_now(t);
	for (int i = 0; i < CUTS; i++)
		trial_judge_random(t, f->end, &cuts);
	/* What a failed flush lost stays lost to the end, whatever is written later */
	for (int i = 0; i < CUTS_LOST && failure && !failure->rule.ops; i++)
		trial_judge(t, f->end, i % 2 ? JOURNAL_TORN : JOURNAL_DROP, random_next(&cuts));
	trial_done(t);
}

struct plan {
	const struct scene *scene;
	uint64_t seed, stride;
	struct failing calm; /* the life without a failure */
};

/* How much of what was asked for is there although it failed. */
enum done { NOTHING, HALF, WHOLE };

/* Each call of a kind on a disk, or one in `stride` of them. */
static void fail_each(struct plan *p, unsigned disk, unsigned op, int error, enum done done)
{
	for (uint64_t n = p->seed % p->stride; n < p->calm.calls[disk][op]; n += p->stride) {
		struct failure failure = {
			.disk = disk,
			.rule = {.ops = 1u << op,
				 .skip = n,
				 .times = 1,
				 .error = error,
				 .half = done == HALF,
				 .whole = done == WHOLE},
		};
		struct failing f;

		live(&f, p->scene, p->seed, &failure);
	}
}

static void fail_each_flush(struct plan *p)
{
	uint64_t flushes = 0;

	for (int disk = 0; disk < SCENE_DISKS; disk++)
		flushes += p->calm.calls[disk][__builtin_ctz(FAULT_FLUSH)];
	for (uint64_t n = 0; n < flushes; n += p->stride / 10 + 1) {
		struct failure failure = {.flush = n};
		struct failing f;

		live(&f, p->scene, p->seed, &failure);
	}
}

/* All kinds of failures of the calls of one kind. */
static void fail_kind(struct plan *p, unsigned disk, unsigned op)
{
	static const unsigned grows = FAULT_WRITE | FAULT_ZERO | FAULT_ALLOCATE | FAULT_RESIZE;
	static const unsigned halves = FAULT_WRITE | FAULT_ZERO;
	static const unsigned wholes = FAULT_WRITE | FAULT_ZERO | FAULT_DISCARD;

	fail_each(p, disk, op, -EIO, NOTHING);
	if (1u << op & grows)
		fail_each(p, disk, op, -ENOSPC, NOTHING);
	if (1u << op & halves)
		fail_each(p, disk, op, -EIO, HALF);
	if (1u << op & wholes)
		fail_each(p, disk, op, -EIO, WHOLE);
}

static void prove(const struct scene *scene, uint64_t seed)
{
	struct plan p = {.scene = scene, .seed = seed, .stride = proof_is_long() ? 1 : 59};

	live(&p.calm, scene, seed, NULL);
	for (unsigned i = 0; i < SCENE_DISKS * 9; i++)
		fail_kind(&p, i / 9, i % 9);
	fail_each_flush(&p);
}

int main(void)
{
	static const struct proof proof = {
		.name = "failures",
		.quick = 2,
		.thorough = 3,
		.prove = prove,
	};

	return proof_main(&proof);
}
