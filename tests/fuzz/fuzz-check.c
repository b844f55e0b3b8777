/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Checking and repairing: any bytes give a verdict, and what a repair calls repaired is clean. */

#include "fuzz.h"
#include "image/image.h"

static int fuzz_save(struct check *check, const void *bytes, size_t len, uint64_t off)
{
	return 0;
}

static int fuzz_save_flush(struct check *check)
{
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum check_repair kinds[] = {CHECK_REPAIR_LEAKS, CHECK_REPAIR_COUNTS,
						  CHECK_REPAIR_ALL};
	_cleanup_store_ struct store *untouched = fuzz_store(data, size);
	bool clean = fuzz_clean(untouched, CHECK_ONLY, NULL);

	for (unsigned i = 0; i < 3; i++) {
		_cleanup_store_ struct store *store = fuzz_store(data, size);
		struct check check = {.repair = kinds[i],
				      .memory = 1 << 20,
				      .save = fuzz_save,
				      .save_flush = fuzz_save_flush};
		struct diag diag = {0};
		int r = image_check(store, "qcow2", &check, &diag);

		fuzz_must(r == 0 || diag.text[0], "a repair that fails says why");
		if (clean)
			fuzz_must(r == 0 && check.leaks_fixed + check.corruptions_fixed == 0,
				  "a clean image needs no repair");
		if (r == 0 && check.leaks == 0 && check.corruptions == 0)
			fuzz_must(fuzz_clean(store, CHECK_ONLY, NULL) || check.marked_dirty ||
					  check.marked_corrupt,
				  "what was repaired is clean");
	}
	return 0;
}
