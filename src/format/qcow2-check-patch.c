/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What repair writes over the image's metadata. Changes are gathered, so that what they replace can
 * be saved, and made durable there, for many of them at once.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/qcow2-check.h"

/* What stands there now; the file may end before. */
static int qcow2_patch_save(struct qcow2_check *c, const struct qcow2_patch *patch)
{
	uint8_t old[QCOW2_PIECE_BYTES];
	ssize_t n = store_read(c->q->img->store, old, patch->len, patch->off);

	if (n < 0)
		return diag_errno(c->diag, (int)n, "%s: cannot read what is to be repaired",
				  c->q->img->name);
	return n == 0 ? 0 : c->check->save(c->check, old, (size_t)n, patch->off);
}

static int qcow2_patches_save(struct qcow2_check *c)
{
	int r = 0;

	for (size_t i = 0; r == 0 && c->check->save && i < c->n_patches; i++)
		r = qcow2_patch_save(c, &c->patches[i]);
	if (r == 0 && c->check->save_flush)
		r = c->check->save_flush(c->check);
	return r;
}

int qcow2_patches_apply(struct qcow2_check *c)
{
	int r = c->n_patches > 0 ? qcow2_patches_save(c) : 0;

	for (size_t i = 0; r == 0 && i < c->n_patches; i++) {
		const struct qcow2_patch *patch = &c->patches[i];

		c->written = true;
		r = store_write(c->q->img->store, patch->bytes, patch->len, patch->off);
		if (r < 0)
			diag_errno(c->diag, r, "%s: cannot be written", c->q->img->name);
	}
	c->n_patches = 0;
	return r;
}

int qcow2_patches_flush(struct qcow2_check *c)
{
	int r = qcow2_patches_apply(c);

	if (r < 0 || !c->written)
		return r;
	r = store_flush(c->q->img->store);
	if (r < 0)
		return diag_errno(c->diag, r, "%s: cannot be written", c->q->img->name);
	c->written = false;
	return 0;
}

int qcow2_patch_add(struct qcow2_check *c, const void *bytes, size_t len, uint64_t off)
{
	struct qcow2_patch *patch;
	int r = c->n_patches == QCOW2_PATCHES_MAX ? qcow2_patches_apply(c) : 0;

	if (r < 0)
		return r;
	if (!c->patches)
		c->patches = malloc(QCOW2_PATCHES_MAX * sizeof(*c->patches));
	if (!c->patches)
		return -ENOMEM;
	assert(len <= sizeof(patch->bytes));
	patch = &c->patches[c->n_patches++];
	patch->off = off;
	patch->len = len;
	memcpy(patch->bytes, bytes, len);
	return 0;
}
