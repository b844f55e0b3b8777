/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "image/image.h"

void fuzz_must(bool kept, const char *promise)
{
	if (kept)
		return;
	fprintf(stderr, "broken: %s\n", promise);
	abort();
}

struct store *fuzz_store(const uint8_t *data, size_t size)
{
	struct store *s = NULL;

	fuzz_must(store_memory_from("input", data, size, FUZZ_STORE_MAX, &s) == 0, "memory");
	return s;
}

uint64_t fuzz_offset(uint64_t size, uint64_t seed, unsigned i)
{
	uint64_t last = size > FUZZ_PIECE ? size - FUZZ_PIECE : 0;

	if (i < 8)
		return min_u64((uint64_t)i * FUZZ_PIECE, last);
	if (i == 8)
		return last;
	/* splitmix64: the same input, the same offsets */
	seed += i * UINT64_C(0x9e3779b97f4a7c15);
	seed = (seed ^ seed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	seed ^= seed >> 31;
	return last ? seed % last : 0;
}

uint64_t fuzz_seed(const uint8_t *data, size_t size)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (size_t i = 0; i < size; i++)
		h = (h ^ data[i]) * UINT64_C(0x100000001b3);
	return h;
}

bool fuzz_clean(struct store *store, enum check_repair repair, struct check *ret)
{
	struct check check = {.repair = repair, .memory = MIB(1)};
	struct diag diag = {0};
	int r = image_check(store, "qcow2", &check, &diag);

	fuzz_must(r == 0 || diag.text[0], "a check that fails says why");
	if (ret)
		*ret = check;
	return r == 0 && check.leaks == 0 && check.corruptions == 0 && !check.marked_dirty &&
	       !check.marked_corrupt;
}
