/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Two requests to one cluster, of which the first is stopped at each of its calls of the store
 * while the second goes as far as it gets. Whatever comes of it must be what one order of the two
 * would have brought, and the image must be as good as before.
 */

#include <stdlib.h>
#include <string.h>

#include "../unit/format/harness.h"
#include "base/checked.h"
#include "gate.h"
#include "ops.h"
#include "rig.h"

enum { RACE_CALLS_MAX = 200 };

/* Parts of a cluster. */
enum race_part { RACE_WHOLE, RACE_FRONT, RACE_BACK, RACE_MIDDLE };

struct race_request {
	enum op_kind kind;
	enum race_part part;
};

struct race {
	struct rig rig;
	struct gate gate;
	struct model model;
	struct image *img;
	struct op first, second;
	bool good;
};

/* Grains that lie inside the part of a cluster, whose edges are other grains. RESIZE: the disk ends
 * in the part's middle. */
static struct op race_op(const struct race *race, const struct race_request *req, uint64_t cluster)
{
	static const struct {
		unsigned from, to; /* eighths */
	} parts[] = {{0, 8}, {0, 4}, {4, 8}, {2, 6}};
	uint64_t eighth = race->rig.shape->cluster / 8, grain = race->rig.grain;
	uint64_t from = cluster * 8 + parts[req->part].from, to = cluster * 8 + parts[req->part].to;
	uint64_t off = div_round_up(from * eighth, grain) * grain;
	uint64_t end = to * eighth / grain * grain;
	struct op op = {.kind = req->kind, .off = off, .len = max_u64(end - off, grain)};

	if (end <= off)
		op.len = grain;
	if (req->kind == OP_RESIZE)
		op.off += op.len / 2 / grain * grain;
	return op;
}

static void race_first(void *data)
{
	struct race *race = data;

	if (!op_run(race->img, &race->model, 0, &race->first))
		race->good = false;
}

static void race_second(void *data)
{
	struct race *race = data;

	if (!op_run(race->img, &race->model, 1, &race->second))
		model_wrong(&race->model, "the second request");
}

/* False when the first request makes no call number `stop_at`. */
static bool race_stopped_at(struct race *race, unsigned stop_at)
{
	bool stopped;

	race->good = true;
	rig_copy(&race->rig, &race->model);
	race->rig.hook = &race->gate.hook;
	race->img = rig_open(&race->rig, &race->model, true);
	if (!race->img)
		fail_msg("%s", race->model.error);
	stopped = gate_run(&race->gate, stop_at, race_first, race_second, race);
	if (!rig_close(&race->rig, &race->model, race->img) || !race->good || race->model.error[0])
		fail_msg("%s: %s of %llu bytes at %llu, stopped at call %u, and then %s of %llu "
			 "bytes at %llu: %s",
			 rig_name(&race->rig), op_names[race->first.kind],
			 (unsigned long long)race->first.len, (unsigned long long)race->first.off,
			 stop_at, op_names[race->second.kind], (unsigned long long)race->second.len,
			 (unsigned long long)race->second.off, race->model.error);
	return stopped;
}

/* How many orders were tried. */
static unsigned race_pair(struct race *race, const struct race_request *first,
			  const struct race_request *second, uint64_t cluster)
{
	unsigned n = 0;

	race->first = race_op(race, first, cluster);
	race->second = race_op(race, second, cluster);
	while (n < RACE_CALLS_MAX && race_stopped_at(race, n))
		n++;
	return n + 1;
}

struct race_set {
	const struct race_request *firsts, *seconds;
	size_t n_firsts, n_seconds;
};

/* In clusters of each kind that the template has: see rig_fill(). */
static unsigned race_shape(const struct race_set *set, const struct rig_shape *shape,
			   enum rig_backing backing)
{
	struct race race;
	unsigned n = 0;

	rig_make(&race.rig, shape, backing);
	gate_init(&race.gate);
	model_init(&race.model, race.rig.grain, race.rig.max);
	for (size_t i = 0; i < set->n_firsts * set->n_seconds; i++) {
		const struct race_request *first = &set->firsts[i / set->n_seconds];
		const struct race_request *second = &set->seconds[i % set->n_seconds];
		uint64_t clusters = race.rig.size / shape->cluster;
		uint64_t places[] = {1, clusters / 5, clusters * 5 / 9, clusters * 9 / 10};

		if ((first->kind == OP_RESIZE || second->kind == OP_RESIZE) && !race.rig.resizable)
			continue;
		for (size_t p = 0; p < ARRAY_SIZE(places); p++)
			n += race_pair(&race, first, second, places[p]);
	}
	print_message("%s: %u orders\n", rig_name(&race.rig), n);
	model_done(&race.model);
	gate_done(&race.gate);
	rig_done(&race.rig);
	return n;
}

static const struct {
	const char *options;
	enum rig_backing backing;
} race_shapes[] = {
	{"cluster_size=64k", RIG_OVER_SHORTER},
	{"extended_l2=on,cluster_size=16k", RIG_OVER_RAW},
	{"cluster_size=4k", RIG_OVER_LONGER},
	{"compression_type=zstd,cluster_size=4k", RIG_ALONE},
	{"data_file=img.data,cluster_size=4k", RIG_OVER_LONGER},
	{"compat=0.10,cluster_size=64k", RIG_OVER_LONGER},
};

enum { RACE_SHAPES_QUICK = 2 };

static bool race_long(void)
{
	return rig_seconds(0) > 20;
}

static void race_all(const struct race_set *set)
{
	size_t n = race_long() ? ARRAY_SIZE(race_shapes) : RACE_SHAPES_QUICK;

	unsigned orders = 0;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < n; i++) {
		const struct rig_shape *shape = rig_shapes;

		while (strcmp(shape->options, race_shapes[i].options) != 0)
			shape++;
		orders += race_shape(set, shape, race_shapes[i].backing);
	}
	print_message("%u orders in all\n", orders);
}

static void test_discard_in_flight_write(void **state)
{
	static const struct race_request firsts[] = {{OP_WRITE, RACE_FRONT},
						     {OP_WRITE, RACE_WHOLE}};
	static const struct race_request seconds[] = {
		{OP_DISCARD, RACE_WHOLE}, {OP_DISCARD, RACE_BACK}, {OP_ZERO, RACE_WHOLE}};
	struct race_set set = {firsts, seconds, ARRAY_SIZE(firsts), ARRAY_SIZE(seconds)};

	race_all(&set);
}

static void test_everything_else(void **state)
{
	static const struct race_request firsts[] = {
		{OP_WRITE, RACE_MIDDLE},   {OP_READ, RACE_WHOLE}, {OP_ALLOCATE, RACE_WHOLE},
		{OP_DISCARD, RACE_MIDDLE}, {OP_ZERO, RACE_FRONT}, {OP_DISCARD, RACE_WHOLE},
		{OP_RESIZE, RACE_BACK}};
	static const struct race_request seconds[] = {
		{OP_WRITE, RACE_BACK}, {OP_WRITE, RACE_WHOLE},	 {OP_DISCARD, RACE_MIDDLE},
		{OP_ZERO, RACE_FRONT}, {OP_ALLOCATE, RACE_BACK}, {OP_RESIZE, RACE_MIDDLE},
		{OP_READ, RACE_WHOLE}};
	static const struct race_request few[] = {{OP_WRITE, RACE_BACK}, {OP_RESIZE, RACE_MIDDLE}};
	struct race_set set = {firsts, seconds, ARRAY_SIZE(firsts), ARRAY_SIZE(seconds)};
	struct race_set quick = {firsts, few, 3, ARRAY_SIZE(few)};

	race_all(race_long() ? &set : &quick);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_discard_in_flight_write, rig_setup,
						rig_teardown),
		cmocka_unit_test_setup_teardown(test_everything_else, rig_setup, rig_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
