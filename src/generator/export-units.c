/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "generator/export-units.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <mntent.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/unit-name.h"
#include "generator-config.h"
#include "service/instance.h"

struct export_units {
	const struct unit_dir *dir;
	const struct fstab *fstab;
	const struct config *config;
	const char *name, *source;
	bool network;
	char service[UNIT_NAME_SIZE];
	char device[UNIT_NAME_SIZE]; /* "": the image is a file */
	char mount[UNIT_NAME_SIZE];  /* "": no MOUNT= */
	char automount[UNIT_NAME_SIZE];
};

/* /dev/shm is a file system, and what lies there has no unit. */
static bool export_units_is_device(const char *path)
{
	return strncmp(path, "/dev/", 5) == 0 && strncmp(path, "/dev/shm/", 9) != 0;
}

static int export_units_name(struct export_units *u, const char *path, const char *suffix,
			     char dst[UNIT_NAME_SIZE], struct diag *diag)
{
	int r = unit_name_from_path(path, suffix, dst);

	if (r < 0)
		return diag_set(diag, r, "%s: %s: too long for the name of a unit", u->source,
				path);
	return 0;
}

/* Values that would end up as other lines of a unit. */
static int export_units_refuse(const struct export_units *u, const char *key, const char *value,
			       struct diag *diag)
{
	for (const char *p = value; p && *p; p++)
		if ((unsigned char)*p < ' ' || *p == '\x7f')
			return diag_set(diag, -EINVAL,
					"%s: %s= has a control character in it, which no unit can "
					"express",
					u->source, key);
	return 0;
}

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
	char escaped[INSTANCE_UNIT_MAX + 1];
	int r = export_units_refuse(u, "IMAGE", u->config->image, diag);

	if (r == 0)
		r = export_units_refuse(u, "BACKING", u->config->backing.dirs, diag);
	if (r < 0)
		return r;
	snprintf(u->service, sizeof(u->service), "fuseimg@%s.service",
		 instance_escape(u->name, escaped));
	u->network = export_units_needs_network(u);
	if (export_units_is_device(u->config->image))
		r = export_units_name(u, u->config->image, ".device", u->device, diag);
	if (r == 0 && b->mount)
		r = export_units_name(u, b->mount, ".mount", u->mount, diag);
	if (r == 0 && b->mount)
		r = export_units_name(u, b->mount, ".automount", u->automount, diag);
	return r;
}

static void export_units_put_device(const struct export_units *u, FILE *f)
{
	if (u->device[0])
		fprintf(f, "BindsTo=%s\nAfter=%s\n", u->device, u->device);
}

/* Directories with : between them. */
static void export_units_put_directories(FILE *f, const char *dirs)
{
	while (dirs && *dirs) {
		size_t n = strcspn(dirs, ":");
		_cleanup_free_ char *dir = strndup(dirs, n);

		if (dir && *dir)
			unit_file_put_word(f, "RequiresMountsFor", dir);
		dirs += n + (dirs[n] == ':');
	}
}

static int export_units_write_service(const struct export_units *u, struct diag *diag)
{
	FILE *f;
	int r = unit_file_begin(u->dir, u->service, "50-image.conf", u->source, &f, diag);

	if (r < 0)
		return r;
	export_units_put_device(u, f);
	if (!u->device[0])
		unit_file_put_word(f, "RequiresMountsFor", u->config->image);
	export_units_put_directories(f, u->config->backing.dirs);
	if (u->network)
		fputs("Wants=network-online.target\n"
		      "After=network.target network-online.target remote-fs-pre.target\n",
		      f);
	return unit_file_finish(f, u->service, diag);
}

/* Read-only comes from the image; the rest may be said otherwise by MOUNT_OPTIONS=, whose words
 * come later and count more. The last ones are for systemd. */
static int export_units_put_options(const struct export_units *u, FILE *f)
{
	const struct config_boot *b = &u->config->boot;
	bool netdev = u->network && !export_units_has_option(u, "_netdev");
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

	if (b->partition)
		snprintf(part, sizeof(part), "part%u", b->partition);
	if (asprintf(&what, "%s/%s", instance_target(u->name, target), part) < 0 ||
	    asprintf(&description, "File system in disk image %s", u->name) < 0)
		return -ENOMEM;
	unit_file_put(f, "Description", description);
	fputs("Documentation=man:fuseimg-generator(8) man:fuseimg.conf(5)\n", f);
	fprintf(f, FUSEIMG_MOUNT_NEEDS "=%s\nAfter=%s\n", u->service, u->service);
	fputs("Wants=modprobe@loop.service\nAfter=modprobe@loop.service\n", f);
	export_units_put_device(u, f);
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
	const char *fs = u->network ? "remote-fs.target" : "local-fs.target";
	bool by_device = u->device[0], waits = !by_device || !b->nofail;
	int r = 0;

	if (b->automount)
		r = unit_file_link(u->dir, fs, kind, u->automount, diag);
	if (r < 0 || !b->autostart)
		return r;
	if (waits)
		r = unit_file_link(u->dir, "multi-user.target", b->mount ? "wants" : kind,
				   u->service, diag);
	if (r == 0 && by_device)
		r = unit_file_link(u->dir, u->device, "wants", u->service, diag);
	if (r < 0 || !b->mount || b->automount)
		return r;
	if (waits)
		r = unit_file_link(u->dir, fs, kind, u->mount, diag);
	if (r == 0 && by_device)
		r = unit_file_link(u->dir, u->device, "wants", u->mount, diag);
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
		r = export_units_write_service(&u, diag);
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
