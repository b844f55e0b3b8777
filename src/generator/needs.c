/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "generator/needs.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "service/instance.h"

/* /dev/shm is a file system, and what lies there has no unit. */
static bool needs_is_device(const char *path)
{
	return strncmp(path, "/dev/", 5) == 0 && strncmp(path, "/dev/shm/", 9) != 0;
}

int needs_unit(const char *source, const char *path, const char *suffix, char dst[UNIT_NAME_SIZE],
	       struct diag *diag)
{
	int r = unit_name_from_path(path, suffix, dst);

	if (r < 0)
		return diag_set(diag, r, "%s: %s: too long for the name of a unit", source, path);
	return 0;
}

const char *needs_service(const char *name, char dst[UNIT_NAME_SIZE])
{
	char escaped[INSTANCE_UNIT_MAX + 1];

	snprintf(dst, UNIT_NAME_SIZE, "fuseimg@%s.service", instance_escape(name, escaped));
	return dst;
}

/* Values that would end up as other lines of a unit. */
static int needs_refuse(const char *source, const char *what, const char *value, struct diag *diag)
{
	for (const char *p = value; p && *p; p++)
		if ((unsigned char)*p < ' ' || *p == '\x7f')
			return diag_set(diag, -EINVAL,
					"%s: %s has a control character in it, which no unit can "
					"express",
					source, what);
	return 0;
}

int needs_init(struct needs *n, const char *source, struct diag *diag)
{
	int r = needs_refuse(source, "the path of the image", n->image, diag);

	if (r == 0)
		r = needs_refuse(source, "BACKING=", n->directories, diag);
	n->device[0] = '\0';
	if (r == 0 && needs_is_device(n->image))
		r = needs_unit(source, n->image, ".device", n->device, diag);
	return r;
}

void needs_put_device(const struct needs *n, FILE *f)
{
	if (n->device[0])
		fprintf(f, "BindsTo=%s\nAfter=%s\n", n->device, n->device);
}

/* Directories with : between them. */
static void needs_put_directories(FILE *f, const char *dirs)
{
	while (dirs && *dirs) {
		size_t n = strcspn(dirs, ":");
		_cleanup_free_ char *dir = strndup(dirs, n);

		if (dir && *dir)
			unit_file_put_word(f, "RequiresMountsFor", dir);
		dirs += n + (dirs[n] == ':');
	}
}

int needs_write(const struct needs *n, const struct unit_dir *dir, const char *service,
		const char *source, struct diag *diag)
{
	FILE *f;
	int r = unit_file_begin(dir, service, "50-image.conf", source, &f, diag);

	if (r < 0)
		return r;
	needs_put_device(n, f);
	if (!n->device[0])
		unit_file_put_word(f, "RequiresMountsFor", n->image);
	needs_put_directories(f, n->directories);
	if (n->network)
		fputs("Wants=network-online.target\n"
		      "After=network.target network-online.target remote-fs-pre.target\n",
		      f);
	return unit_file_finish(f, service, diag);
}

/* Not After= the unit of the outer mount: naming it before it exists would make systemd load it
 * without its drop-ins (units/run-fuseimg-.mount.d). RequiresMountsFor= does not. */
int needs_write_order(const struct needs *n, const struct unit_dir *units, const char *name,
		      const char *unit, const char *drop_in, const char *source, struct diag *diag)
{
	char service[UNIT_NAME_SIZE], target[PATH_MAX];
	FILE *f;
	int r = unit_file_begin(units, unit, drop_in, source, &f, diag);

	if (r < 0)
		return r;
	fprintf(f, "After=%s\n", needs_service(name, service));
	unit_file_put_word(f, "RequiresMountsFor", instance_target(name, target));
	if (n && !n->device[0])
		unit_file_put_word(f, "RequiresMountsFor", n->image);
	return unit_file_finish(f, unit, diag);
}
