/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "generator/export-units.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <mntent.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/selector.h"
#include "generator-config.h"
#include "generator/needs.h"
#include "service/instance.h"

struct export_units {
	const struct unit_dir *dir;
	const struct fstab *fstab;
	const struct config *config;
	const char *name, *source;
	struct needs needs;
	char service[UNIT_NAME_SIZE];
	char mount[UNIT_NAME_SIZE]; /* "": no MOUNT= */
	char automount[UNIT_NAME_SIZE];
};

static bool export_units_has_option(const struct export_units *u, const char *option)
{
	const struct mntent m = {.mnt_opts = u->config->boot.options};

	return m.mnt_opts && hasmntopt(&m, option);
}

static bool export_units_needs_network(const struct export_units *u)
{
	const struct config_boot *b = &u->config->boot;

	return export_units_has_option(u, "_netdev") ||
	       fstab_on_network(u->fstab, u->config->image) ||
	       (b->mount && fstab_on_network(u->fstab, b->mount));
}

static int export_units_prepare(struct export_units *u, struct diag *diag)
{
	const struct config_boot *b = &u->config->boot;
	int r;

	u->needs.image = u->config->image;
	u->needs.directories = u->config->backing.dirs;
	u->needs.network = export_units_needs_network(u);
	needs_service(u->name, u->service);
	r = needs_init(&u->needs, u->source, diag);
	if (r == 0 && b->mount)
		r = needs_unit(u->source, b->mount, ".mount", u->mount, diag);
	if (r == 0 && b->mount)
		r = needs_unit(u->source, b->mount, ".automount", u->automount, diag);
	return r;
}

/* Read-only comes from the image; the rest may be said otherwise by MOUNT_OPTIONS=, whose words
 * come later and count more. The last ones are for systemd. */
static int export_units_put_options(const struct export_units *u, FILE *f)
{
	const struct config_boot *b = &u->config->boot;
	bool netdev = u->needs.network && !export_units_has_option(u, "_netdev");
	_cleanup_free_ char *text = NULL;

	if (asprintf(&text, "nodev,nosuid%s%s%s%s%s,loop", b->options ? "," : "", b->options ?: "",
		     u->config->read_only ? ",ro" : "", netdev ? ",_netdev" : "",
		     b->nofail ? ",nofail" : "") < 0)
		return -ENOMEM;
	unit_file_put(f, "Options", text);
	return 0;
}

static int export_units_put_mount(const struct export_units *u, FILE *f)
{
	const struct config_boot *b = &u->config->boot;
	_cleanup_free_ char *description = NULL, *what = NULL;
	char target[PATH_MAX], part[32] = "disk";
	struct selector selector;

	/* Which one it is the export finds out when it has the image open */
	if (b->partition)
		strcpy(part, "partition");
	if (b->partition && selector_parse(b->partition, &selector) == 0 &&
	    selector.kind == SELECTOR_NUMBER)
		snprintf(part, sizeof(part), "part%u", selector.number);
	if (asprintf(&what, "%s/%s", instance_target(u->name, target), part) < 0 ||
	    asprintf(&description, "File system in disk image %s", u->name) < 0)
		return -ENOMEM;
	unit_file_put(f, "Description", description);
	fputs("Documentation=man:fuseimg-generator(8) man:fuseimg.conf(5)\n", f);
	fprintf(f, FUSEIMG_MOUNT_NEEDS "=%s\nAfter=%s\n", u->service, u->service);
	fputs("Wants=modprobe@loop.service\nAfter=modprobe@loop.service\n", f);
	needs_put_device(&u->needs, f);
	fputs("\n[Mount]\n", f);
	unit_file_put(f, "What", what);
	/* else the name of the unit says it */
	if (unit_file_is_whole(b->mount))
		unit_file_put(f, "Where", b->mount);
	if (strcmp(b->fstype, "auto") != 0)
		unit_file_put(f, "Type", b->fstype);
	return export_units_put_options(u, f);
}

static int export_units_write_mount(const struct export_units *u, struct diag *diag)
{
	FILE *f;
	int r = unit_file_begin(u->dir, u->mount, NULL, u->source, &f, diag), put;

	if (r < 0)
		return r;
	put = export_units_put_mount(u, f);
	r = unit_file_finish(f, u->mount, diag);
	return put < 0 ? diag_errno(diag, put, "%s", u->mount) : r;
}

static int export_units_write_automount(const struct export_units *u, struct diag *diag)
{
	const struct config_boot *b = &u->config->boot;
	FILE *f;
	int r = unit_file_begin(u->dir, u->automount, NULL, u->source, &f, diag);

	if (r < 0)
		return r;
	fputs("Documentation=man:fuseimg-generator(8) man:fuseimg.conf(5)\n\n[Automount]\n", f);
	if (unit_file_is_whole(b->mount))
		unit_file_put(f, "Where", b->mount);
	if (b->idle_timeout)
		fprintf(f, "TimeoutIdleSec=%" PRIu64 "us\n", b->idle_timeout);
	return unit_file_finish(f, u->automount, diag);
}

/* What boot is to start. */
static int export_units_link(const struct export_units *u, struct diag *diag)
{
	const struct config_boot *b = &u->config->boot;
	const char *kind = b->nofail ? "wants" : "requires";
	const char *fs = u->needs.network ? "remote-fs.target" : "local-fs.target";
	bool by_device = u->needs.device[0], waits = !by_device || !b->nofail;
	int r = 0;

	if (b->automount)
		r = unit_file_link(u->dir, fs, kind, u->automount, diag);
	if (r < 0 || !b->autostart)
		return r;
	if (waits)
		r = unit_file_link(u->dir, "multi-user.target", b->mount ? "wants" : kind,
				   u->service, diag);
	if (r == 0 && by_device)
		r = unit_file_link(u->dir, u->needs.device, "wants", u->service, diag);
	if (r < 0 || !b->mount || b->automount)
		return r;
	if (waits)
		r = unit_file_link(u->dir, fs, kind, u->mount, diag);
	if (r == 0 && by_device)
		r = unit_file_link(u->dir, u->needs.device, "wants", u->mount, diag);
	return r;
}

int export_units_write(const struct unit_dir *dir, const struct fstab *fstab, const char *name,
		       const char *source, const struct config *config, struct diag *diag)
{
	struct export_units u = {
		.dir = dir, .fstab = fstab, .config = config, .name = name, .source = source};
	const struct config_boot *b = &config->boot;
	int r = export_units_prepare(&u, diag);

	if (r == 0)
		r = needs_write(&u.needs, dir, u.service, source, diag);
	if (r == 0 && b->mount && fstab_find(fstab, b->mount))
		return diag_set(diag, -EEXIST, "%s: MOUNT=%s: %s mounts something there already",
				source, b->mount, fstab_path());
	if (r == 0 && b->mount)
		r = export_units_write_mount(&u, diag);
	if (r == -EEXIST && diag)
		diag_set(diag, r, "%s: MOUNT=%s: another export is mounted there", source,
			 b->mount);
	if (r == 0 && b->automount)
		r = export_units_write_automount(&u, diag);
	return r == 0 ? export_units_link(&u, diag) : r;
}
