/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * fuseimg-generator: run by systemd at boot and at each daemon-reload, before any unit starts, by
 * the rules of systemd.generator(7): no service can be asked, nothing may take long, and nothing
 * that stands in a file may keep the system from booting. So a file that cannot be used costs a
 * line in the kernel's log and that one export.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "generator/export-units.h"
#include "generator/fstab-units.h"
#include "service/fstab.h"
#include "generator/unit-file.h"
#include "service/config-file.h"
#include "service/instance.h"

static const char suffix[] = ".conf";

/* Editors and package managers leave files beside ours, which end otherwise or begin with a dot. */
static int is_configuration(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name);

	return n >= sizeof(suffix) && entry->d_name[0] != '.' &&
	       strcmp(entry->d_name + n - strlen(suffix), suffix) == 0;
}

/* A FIFO would never end. */
static int check_regular(const char *path, struct diag *diag)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return diag_errno(diag, -errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return diag_set(diag, -EINVAL, "%s is no regular file", path);
	return 0;
}

static int generate(const struct unit_dir *dir, const struct fstab *fstab, const char *file_name,
		    struct diag *diag)
{
	_cleanup_free_ char *name = strndup(file_name, strlen(file_name) - strlen(suffix));
	_cleanup_(config_done) struct config config = {0};
	char path[PATH_MAX];
	int r;

	if (!name)
		return diag_errno(diag, -ENOMEM, "%s", file_name);
	instance_file(name, path);
	r = instance_check(name, diag);
	if (r < 0) {
		diag_prefix(diag, "%s", path);
		return r;
	}
	r = check_regular(path, diag);
	if (r == 0)
		r = config_file_read_early(path, &config, diag);
	if (r < 0)
		return r;
	return export_units_write(dir, fstab, name, path, &config, diag);
}

static void warn(const struct diag *diag)
{
	char shown[DIAG_MAX];

	log_msg(LOG_WARNING, "%s",
		diag_quote(shown, sizeof(shown), diag->text, strlen(diag->text)));
}

/* The directory of all configurations: what instance_file() puts before a name. */
static const char *configuration_dir(char dst[PATH_MAX])
{
	instance_file("x", dst);
	*strrchr(dst, '/') = '\0';
	return dst;
}

static void generate_fstab(const struct unit_dir *dir, const struct fstab *fstab)
{
	for (size_t i = 0; i < fstab->n; i++) {
		struct diag own = {0};

		if (fstab_units_write(dir, fstab, &fstab->entries[i], &own) < 0)
			warn(&own);
	}
}

static int generate_exports(const struct unit_dir *dir, const struct fstab *fstab,
			    struct diag *diag)
{
	struct dirent **entries = NULL;
	char path[PATH_MAX];
	int n = scandir(configuration_dir(path), &entries, is_configuration, alphasort);

	if (n < 0 && errno == ENOENT)
		return 0;
	if (n < 0)
		return diag_errno(diag, -errno, "%s", path);
	for (int i = 0; i < n; i++) {
		struct diag own = {0};

		if (generate(dir, fstab, entries[i]->d_name, &own) < 0)
			warn(&own);
		free(entries[i]);
	}
	free(entries);
	return 0;
}

static int generate_all(const struct unit_dir *dir, struct diag *diag)
{
	_cleanup_(fstab_done) struct fstab fstab = {0};

	if (fstab_load(&fstab, diag) < 0)
		warn(diag);
	generate_fstab(dir, &fstab);
	return generate_exports(dir, &fstab, diag);
}

/* systemd gives three directories, for units that come before, between and behind those of others;
 * ours is the first. One is enough for trying it out. */
int main(int argc, char **argv)
{
	struct unit_dir dir = {.fd = -1, .writer = "fuseimg-generator(8)"};
	struct diag diag = {0};
	int r;

	log_init("fuseimg-generator", getenv("SYSTEMD_SCOPE") ? LOG_TO_KERNEL : LOG_TO_STDERR);
	if (argc != 2 && argc != 4) {
		log_msg(LOG_ERR, "Usage: fuseimg-generator NORMAL-DIR [EARLY-DIR LATE-DIR]");
		return 2;
	}
	umask(0022);
	dir.path = argv[1];
	dir.fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = dir.fd < 0 ? diag_errno(&diag, -errno, "%s", argv[1]) : generate_all(&dir, &diag);
	if (r < 0)
		warn(&diag);
	if (dir.fd >= 0)
		close(dir.fd);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
