/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "power.h"

void power_open(struct disk *d, struct journal *j)
{
	struct diag diag = {0};
	struct store *store;

	store_load("img", &store);
	assert_int_equal(journal_attach(j, store, &store), 0);
	assert_int_equal(disk_open_store(d, store, "qcow2", true, &diag), 0);
}

void power_open_cut(struct disk *d, struct journal *j, size_t k, size_t every)
{
	struct check check = {.repair = CHECK_ONLY};
	struct diag diag = {0};
	struct store *store;

	assert_int_equal(journal_cut(j, 0, k, (enum journal_loss)(k % 4), k, &store), 0);
	if (k % every == 0) {
		store_dump(store, "after");
		assert_check("after", true);
	}
	assert_int_equal(disk_open_store(d, store, "qcow2", false, &diag), 0);
	assert_int_equal(d->img.format->check(&d->img, &check, &diag), 0);
	assert_int_equal(check.corruptions, 0);
}
