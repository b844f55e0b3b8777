/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "generator/fstab-units.h"

#include <errno.h>
#include <string.h>

#include "generator/needs.h"
#include "service/instance.h"

static bool fstab_units_is_ours(const struct fstab_entry *e)
{
	return strcmp(e->type, "fuseimg") == 0 || strcmp(e->type, "fuse.fuseimg") == 0;
}

int fstab_units_write(const struct unit_dir *dir, const struct fstab *fstab,
		      const struct fstab_entry *e, struct diag *diag)
{
	char of_image[INSTANCE_IMAGE_MAX + 1], service[UNIT_NAME_SIZE], mount[UNIT_NAME_SIZE];
	struct needs needs = {.image = e->spec};
	bool named = e->spec[0] != '/';
	const char *name = named ? e->spec : instance_of_image(e->spec, of_image);
	int r;

	if (!fstab_units_is_ours(e))
		return 0;
	needs.network = fstab_on_network(fstab, e->spec) || fstab_needs_network(e);
	r = named ? instance_check(name, diag) : needs_init(&needs, fstab_path(), diag);
	if (r == 0 && !named)
		r = needs_write(&needs, dir, needs_service(name, service), fstab_path(), diag);
	if (r < 0 && r != -EEXIST) /* another line mounts the same image */
		return r;
	r = needs_unit(fstab_path(), e->dir, ".mount", mount, diag);
	if (r < 0)
		return r;
	return needs_write_order(named ? NULL : &needs, dir, name, mount, "50-fuseimg.conf",
				 fstab_path(), diag);
}
