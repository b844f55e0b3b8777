/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/instance.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/unit-name.h"
#include "base/utf8.h"

enum {
	INSTANCE_BASE_MAX =
		48, /* so that it can be escaped in the name of a unit, whatever it is */
};

/* Its directory in /run/fuseimg is the list of running exports (registry.h). */
static const char instance_reserved[] = "exports";

const char *instance_escape(const char *name, char dst[INSTANCE_UNIT_MAX + 1])
{
	unit_name_escape(name, dst, INSTANCE_UNIT_MAX + 1);
	return dst;
}

/* The usual mistake: the name of a unit that was not escaped. */
static int instance_refuse_slash(const char *name, struct diag *diag)
{
	char dashes[INSTANCE_UNIT_MAX + 1], unit[INSTANCE_UNIT_MAX + 1];

	snprintf(dashes, sizeof(dashes), "%s", name);
	for (char *p = dashes; *p; p++)
		if (*p == '/')
			*p = '-';
	return diag_set(
		diag, -EINVAL,
		"%s: the name of an export has no / in it; if \"%s\" was meant: its unit is "
		"'fuseimg@%s.service', since a plain - means / there",
		name, dashes, instance_escape(dashes, unit));
}

int instance_check(const char *name, struct diag *diag)
{
	if (!*name)
		return diag_set(diag, -EINVAL, "The name of an export is not empty");
	if (!utf8_is_valid(name))
		return diag_set(diag, -EINVAL, "The name of an export must be valid UTF-8");
	for (const char *p = name; *p; p++)
		if (iscntrl((unsigned char)*p))
			return diag_set(diag, -EINVAL,
					"The name of an export has no control characters in it");
	if (unit_name_escape(name, NULL, 0) > INSTANCE_UNIT_MAX)
		return diag_set(diag, -EINVAL,
				"%.32s...: too long for the name of an export (its unit would be "
				"longer than systemd allows)",
				name);
	if (strchr(name, '/'))
		return instance_refuse_slash(name, diag);
	if (name[0] == '.')
		return diag_set(diag, -EINVAL, "%s: the name of an export begins with no dot",
				name);
	if (strcmp(name, instance_reserved) == 0)
		return diag_set(diag, -EINVAL, "\"%s\" is taken, choose another name", name);
	return 0;
}

/* A name that was checked is much shorter than a path may be; the directory is cut. */
static const char *instance_path(const char *variable, const char *fallback, const char *name,
				 const char *suffix, char dst[PATH_MAX])
{
	const char *dir = getenv(variable);

	if (!dir || *dir != '/')
		dir = fallback;
	snprintf(dst, PATH_MAX, "%.*s/%s%s", PATH_MAX / 2, dir, name, suffix);
	return dst;
}

const char *instance_file(const char *name, char dst[PATH_MAX])
{
	return instance_path("FUSEIMG_CONFIG_DIR", "/etc/fuseimg", name, ".conf", dst);
}

const char *instance_target(const char *name, char dst[PATH_MAX])
{
	return instance_path("FUSEIMG_RUNTIME_DIR", "/run/fuseimg", name, "", dst);
}

const char *instance_runtime_file(const char *name, char dst[PATH_MAX])
{
	char below[sizeof(".conf/") + NAME_MAX];

	snprintf(below, sizeof(below), ".conf/%s", name);
	return instance_path("FUSEIMG_RUNTIME_DIR", "/run/fuseimg", below, ".conf", dst);
}

const char *instance_find_file(const char *name, char dst[PATH_MAX])
{
	if (access(instance_file(name, dst), F_OK) == 0 ||
	    access(instance_runtime_file(name, dst), F_OK) == 0)
		return dst;
	return instance_file(name, dst);
}

/* FNV-1a. Who makes two paths meet gets an error from the mount helper, which compares them. */
static uint64_t instance_hash(const char *s)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (; *s; s++)
		hash = (hash ^ (unsigned char)*s) * 0x100000001b3;
	return hash;
}

const char *instance_of_image(const char *path, char dst[INSTANCE_IMAGE_MAX + 1])
{
	const char *slash = strrchr(path, '/');
	char base[INSTANCE_BASE_MAX + 1];

	snprintf(base, sizeof(base), "%s", slash ? slash + 1 : path);
	if (instance_check(base, NULL) < 0) /* also where a character was cut */
		strcpy(base, "image");
	snprintf(dst, INSTANCE_IMAGE_MAX + 1, "%s:%016" PRIx64, base, instance_hash(path));
	return dst;
}
