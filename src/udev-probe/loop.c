/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "udev-probe/loop.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/io.h"

static const char loop_exports[] = "/run/fuseimg/";

/* As udev encodes labels: what is not safe in the name of a link is \xNN. */
static void loop_encode(const char *name, size_t len, char *dst)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];

		if ((isascii(c) && isalnum(c)) || strchr("#+-.:=@_", c))
			*dst++ = (char)c;
		else
			dst += sprintf(dst, "\\x%02x", c);
	}
	*dst = '\0';
}

static bool loop_is_part(const char *file)
{
	return strncmp(file, "part", 4) == 0 && isdigit((unsigned char)file[4]) &&
	       strspn(file + 4, "0123456789") == strlen(file + 4) && strlen(file) < 16;
}

bool loop_describe_file(const char *path, char dst[LOOP_TEXT_MAX])
{
	const char *name = path + strlen(loop_exports), *file;
	char encoded[4 * NAME_MAX + 1];
	size_t len;

	if (strncmp(path, loop_exports, strlen(loop_exports)) != 0)
		return false;
	len = strcspn(name, "/");
	if (len == 0 || len > NAME_MAX || name[len] != '/')
		return false;
	file = name + len + 1;
	loop_encode(name, len, encoded);
	if (strcmp(file, "disk") == 0)
		snprintf(dst, LOOP_TEXT_MAX, "export %s", encoded);
	else if (loop_is_part(file))
		snprintf(dst, LOOP_TEXT_MAX, "export %s %s", encoded, file);
	else
		return false;
	return true;
}

/* One line of a file in /sys. */
static bool loop_attribute(dev_t device, const char *name, char dst[PATH_MAX])
{
	_cleanup_free_ char *text = NULL;
	char path[128];

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(device), minor(device), name);
	if (io_read_file(AT_FDCWD, path, PATH_MAX, &text, NULL) < 0)
		return false;
	snprintf(dst, PATH_MAX, "%.*s", (int)strcspn(text, "\n"), text);
	return true;
}

bool loop_describe(dev_t device, char dst[LOOP_TEXT_MAX])
{
	char file[PATH_MAX], number[PATH_MAX];
	size_t n;

	if (loop_attribute(device, "loop/backing_file", file))
		return loop_describe_file(file, dst);
	/* The partition of one, which the kernel has found on a whole disk */
	if (!loop_attribute(device, "../loop/backing_file", file) ||
	    !loop_attribute(device, "partition", number) || !loop_describe_file(file, dst) ||
	    strchr(dst + strlen("export "), ' '))
		return false;
	n = strlen(dst);
	snprintf(dst + n, LOOP_TEXT_MAX - n, " part%.8s", number);
	return true;
}
