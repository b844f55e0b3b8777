/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/loops.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"

bool loops_path_inside(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

bool loops_is_device(const char *source, const char *name)
{
	size_t n = strlen(name);

	if (strncmp(source, "/dev/", 5) != 0 || strncmp(source + 5, name, n) != 0)
		return false;
	return source[5 + n] == '\0' || source[5 + n] == 'p';
}

static bool loops_is_over(const char *name, const char *target)
{
	_cleanup_free_ char *file = NULL;
	char path[NAME_MAX + 64];

	if (strncmp(name, "loop", 4) != 0)
		return false;
	snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", name);
	if (io_read_file(AT_FDCWD, path, PATH_MAX, &file, NULL) < 0)
		return false;
	file[strcspn(file, "\n")] = '\0';
	return loops_path_inside(file, target);
}

static void loops_add(struct loops *l, const char *name)
{
	char **names = reallocarray(l->names, l->n + 1, sizeof(*names));

	if (!names)
		return;
	l->names = names;
	names[l->n] = strdup(name);
	l->n += names[l->n] != NULL;
}

void loops_find(const char *target, struct loops *ret)
{
	DIR *dir = opendir("/sys/block");
	const struct dirent *e;

	*ret = (struct loops){0};
	if (!dir)
		return;
	while ((e = readdir(dir)))
		if (loops_is_over(e->d_name, target))
			loops_add(ret, e->d_name);
	closedir(dir);
}

void loops_done(struct loops *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->names[i]);
	free(l->names);
	*l = (struct loops){0};
}
