/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/instance.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* Its directory in /run/fuseimg is the list of running exports (registry.h). */
static const char instance_reserved[] = "exports";

static bool instance_is_plain(const char *name, const char *p)
{
	if (*p == '.' && p == name)
		return false;
	return isascii(*p) && (isalnum((unsigned char)*p) || strchr(":_.", *p));
}

/* How long the name is in the name of a unit. */
static size_t instance_escaped_len(const char *name)
{
	size_t n = 0;

	for (const char *p = name; *p; p++)
		n += instance_is_plain(name, p) ? 1 : strlen("\\xNN");
	return n;
}

const char *instance_escape(const char *name, char dst[INSTANCE_UNIT_MAX + 1])
{
	size_t n = 0;

	for (const char *p = name; *p && n + 4 <= INSTANCE_UNIT_MAX; p++) {
		if (instance_is_plain(name, p))
			dst[n++] = *p;
		else
			n += (size_t)sprintf(dst + n, "\\x%02x", (unsigned char)*p);
	}
	dst[n] = '\0';
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
	if (instance_escaped_len(name) > INSTANCE_UNIT_MAX)
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
