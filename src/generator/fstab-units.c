/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "generator/fstab-units.h"

#include <errno.h>
#include <string.h>

#include "generator-config.h"
#include "generator/needs.h"
#include "service/instance.h"

static bool fstab_units_is_ours(const struct fstab_entry *e)
{
	return strcmp(e->type, "fuseimg") == 0 || strcmp(e->type, "fuse.fuseimg") == 0;
}

/* needs: of the image; NULL: the export has a configuration of its own, and can be required. */
static int fstab_units_write_mount(const struct unit_dir *dir, const struct fstab_entry *e,
				   const char *service, const struct needs *needs,
				   struct diag *diag)
{
	char mount[UNIT_NAME_SIZE];
	FILE *f;
	int r = needs_unit(fstab_path(), e->dir, ".mount", mount, diag);

	if (r == 0)
		r = unit_file_begin(dir, mount, "50-fuseimg.conf", fstab_path(), &f, diag);
	if (r < 0)
		return r;
	if (!needs)
		fprintf(f, FUSEIMG_MOUNT_NEEDS "=%s\n", service);
	fprintf(f, "After=%s\n", service);
	if (needs && !needs->device[0])
		unit_file_put_word(f, "RequiresMountsFor", e->spec);
	return unit_file_finish(f, mount, diag);
}

int fstab_units_write(const struct unit_dir *dir, const struct fstab *fstab,
		      const struct fstab_entry *e, struct diag *diag)
{
	char name[INSTANCE_IMAGE_MAX + 1], service[UNIT_NAME_SIZE];
	struct needs needs = {.image = e->spec};
	bool named = e->spec[0] != '/';
	int r = 0;

	if (!fstab_units_is_ours(e))
		return 0;
	if (named) {
		r = instance_check(e->spec, diag);
		needs_service(e->spec, service);
	} else {
		needs.network = fstab_on_network(fstab, e->spec) || fstab_needs_network(e);
		r = needs_init(&needs, fstab_path(), diag);
		needs_service(instance_of_image(e->spec, name), service);
	}
	if (r == 0 && !named)
		r = needs_write(&needs, dir, service, fstab_path(), diag);
	if (r < 0 && r != -EEXIST) /* another line mounts the same image */
		return r;
	return fstab_units_write_mount(dir, e, service, named ? NULL : &needs, diag);
}
