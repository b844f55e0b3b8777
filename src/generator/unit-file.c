/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "generator/unit-file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "generator-config.h"

/* Opens dir/unit.suffix, which is made if needed. */
static int unit_file_subdirectory(const struct unit_dir *dir, const char *unit, const char *suffix,
				  int *ret_fd, struct diag *diag)
{
	char name[NAME_MAX + 1];
	int fd;

	if (snprintf(name, sizeof(name), "%s.%s", unit, suffix) >= (int)sizeof(name))
		return diag_errno(diag, -ENAMETOOLONG, "%s.%s", unit, suffix);
	if (mkdirat(dir->fd, name, 0755) < 0 && errno != EEXIST)
		return diag_errno(diag, -errno, "%s/%s", dir->path, name);
	fd = openat(dir->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return diag_errno(diag, -errno, "%s/%s", dir->path, name);
	*ret_fd = fd;
	return 0;
}

static int unit_file_create(int dir_fd, const char *name, FILE **ret)
{
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0)
		return -errno;
	*ret = fdopen(fd, "w");
	if (!*ret)
		return -errno;
	TAKE_FD(fd);
	return 0;
}

int unit_file_begin(const struct unit_dir *dir, const char *unit, const char *drop_in,
		    const char *source, FILE **ret, struct diag *diag)
{
	_cleanup_close_ int below = -1;
	FILE *f;
	int r = 0;

	if (drop_in)
		r = unit_file_subdirectory(dir, unit, "d", &below, diag);
	if (r < 0)
		return r;
	r = unit_file_create(drop_in ? below : dir->fd, drop_in ?: unit, &f);
	if (r < 0)
		return diag_errno(diag, r, "%s/%s", dir->path, unit);
	fprintf(f, "# Written by %s\n\n[Unit]\n", dir->writer);
	if (source && unit_file_is_whole(source))
		unit_file_put(f, "SourcePath", source);
	*ret = f;
	return 0;
}

int unit_file_finish(FILE *f, const char *unit, struct diag *diag)
{
	bool failed = ferror(f);

	if (fclose(f) != 0 || failed)
		return diag_errno(diag, -(errno ?: EIO), "%s cannot be written", unit);
	return 0;
}

/* As the value of a setting or as a word in double quotes. */
static void unit_file_escape(FILE *f, const char *value, bool quoted)
{
	for (const char *p = value; *p; p++) {
		if (*p == '%')
			putc('%', f);
		else if (quoted && (*p == '"' || *p == '\\'))
			putc('\\', f);
		putc(*p, f);
	}
}

void unit_file_put(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s=", key);
	unit_file_escape(f, value, false);
	putc('\n', f);
}

void unit_file_put_word(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s=\"", key);
	unit_file_escape(f, value, true);
	fputs("\"\n", f);
}

bool unit_file_is_whole(const char *value)
{
	size_t n = strlen(value);

	for (size_t i = 0; i < n; i++)
		if (iscntrl((unsigned char)value[i]))
			return false;
	return n == 0 || (value[0] != ' ' && value[n - 1] != ' ' && value[n - 1] != '\\');
}

int unit_file_link(const struct unit_dir *dir, const char *unit, const char *kind,
		   const char *other, struct diag *diag)
{
	_cleanup_close_ int below = -1;
	char target[PATH_MAX];
	const char *at = strchr(other, '@');
	int r = unit_file_subdirectory(dir, unit, kind, &below, diag);

	if (r < 0)
		return r;
	if (at)
		snprintf(target, sizeof(target), FUSEIMG_UNIT_DIR "/%.*s%s", (int)(at + 1 - other),
			 other, strrchr(other, '.'));
	else
		snprintf(target, sizeof(target), "../%s", other);
	if (symlinkat(target, below, other) < 0 && errno != EEXIST)
		return diag_errno(diag, -errno, "%s/%s.%s/%s", dir->path, unit, kind, other);
	return 0;
}
