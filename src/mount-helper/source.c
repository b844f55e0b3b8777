/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mount-helper/source.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/mounts.h"
#include "base/unit-name.h"
#include "generator/needs.h"
#include "mount-helper-config.h"
#include "mount-helper/run.h"
#include "service/systemctl.h"

enum {
	SOURCE_FILE_MAX = 64 << 10,
	SOURCE_WAIT_STEP_MS = 50,
	SOURCE_WAIT_STEPS = 100,
};

static bool source_has_systemd(void)
{
	return access("/run/systemd/system", F_OK) == 0;
}

static int source_init_named(struct source *s, const char *name, const struct options *o,
			     struct diag *diag)
{
	int r = instance_check(name, diag);

	if (r < 0)
		return r;
	if (options_about_image(o))
		return diag_set(diag, -EINVAL,
				"%s is the name of an export: what its image is to be stands in "
				"its configuration, not here",
				name);
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->ours = false;
	return 0;
}

int source_init(struct source *s, const char *spec, const struct options *o, struct diag *diag)
{
	char name[INSTANCE_IMAGE_MAX + 1];
	int r = 0;

	if (spec[0] == '/') {
		snprintf(s->name, sizeof(s->name), "%s", instance_of_image(spec, name));
		s->ours = true;
	} else {
		r = source_init_named(s, spec, o, diag);
	}
	instance_target(s->name, s->target);
	s->lock = -1;
	return r;
}

void source_done(struct source *s)
{
	closep(&s->lock);
	s->lock = -1;
}

/* Is it mounted? -errno. */
static int source_stands(const struct source *s)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	const struct mounts_entry *e;
	int r = mounts_read(&m);

	if (r < 0)
		return r;
	e = mounts_at(&m, s->target);
	return e && strcmp(e->type, MOUNTS_OURS) == 0;
}

/* mkdir -p for the directory that path is in. */
static int source_make_parents(const char *path)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s", path);
	for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(dir, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return 0;
}

static int source_settings(const char *spec, const struct options *o, char **ret)
{
	size_t size;
	FILE *f = open_memstream(ret, &size);

	if (!f)
		return -ENOMEM;
	fputs("# Written by mount.fuseimg(8)\n", f);
	options_put_setting(f, "IMAGE", spec);
	options_put_setting(f, "READ_ONLY", o->config.read_only ? "yes" : "no");
	fputs(o->settings, f);
	return fclose(f) == 0 ? 0 : -ENOMEM;
}

/* Writes the settings, unless the export stands: then they must be what it was started with. fd:
 * the file, locked. */
static int source_settle(const struct source *s, int fd, const char *path, const char *settings,
			 struct diag *diag)
{
	_cleanup_free_ char *old = NULL;
	int stands = source_stands(s), r;

	if (stands < 0)
		return diag_errno(diag, stands, "the mount table");
	r = io_read_file(AT_FDCWD, path, SOURCE_FILE_MAX, &old, NULL);
	if (r < 0)
		return diag_errno(diag, r, "%s", path);
	if (strcmp(old, settings) == 0)
		return 0;
	if (stands)
		return diag_set(diag, -EBUSY,
				"the image is in use by another mount, with other options (%s)",
				path);
	r = ftruncate(fd, 0) < 0 ? -errno : io_pwrite(fd, settings, strlen(settings), 0);
	return r < 0 ? diag_errno(diag, r, "%s", path) : 0;
}

/* The lock also keeps two mounts of one image, which boot starts at the same time, from each
 * other's feet. */
static int source_configure(struct source *s, const char *spec, const struct options *o,
			    struct diag *diag)
{
	_cleanup_free_ char *settings = NULL;
	char path[PATH_MAX];
	int r;

	instance_runtime_file(s->name, path);
	r = source_make_parents(path);
	if (r == 0)
		r = source_settings(spec, o, &settings);
	if (r < 0)
		return diag_errno(diag, r, "%s", path);
	s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock < 0 || flock(s->lock, LOCK_EX) < 0)
		return diag_errno(diag, -errno, "%s", path);
	return source_settle(s, s->lock, path, settings, diag);
}

/* The service says in its status why it does not start. */
static int source_start_failed(const char *unit, struct diag *diag)
{
	char why[DIAG_MAX / 2];

	systemctl_show(unit, "StatusText", why, sizeof(why));
	return diag_set(diag, -EIO, "%s%s does not start; see: systemctl status '%s'", why,
			why[0] ? ": the service" : unit, unit);
}

static int source_start_unit(const struct source *s, struct diag *diag)
{
	struct run start = {
		.words = {"systemctl", "--quiet", "--no-ask-password", "start", "--"},
		.n = 5,
	};
	char unit[UNIT_NAME_SIZE];
	int r;

	run_add(&start, needs_service(s->name, unit));
	r = run_wait(&start, diag);
	return r > 0 ? source_start_failed(unit, diag) : r;
}

/* Without systemd */
static int source_start_daemon(const struct source *s, const char *spec, const struct options *o,
			       struct diag *diag)
{
	struct run start = {.words = {secure_getenv("FUSEIMG_PROGRAM") ?: FUSEIMG_PROGRAM, "mount",
				      "-o", o->words, "--", spec, s->target},
			    .n = 7};
	int r = source_stands(s);

	if (r < 0)
		return diag_errno(diag, r, "the mount table");
	if (r > 0)
		return 0;
	if (!s->ours)
		return diag_set(diag, -ENOENT,
				"the export \"%s\" does not run; start it: fuseimg serve '%s'",
				s->name, s->name);
	r = source_make_parents(s->target);
	if (r == 0 && mkdir(s->target, 0755) < 0 && errno != EEXIST)
		r = -errno;
	if (r < 0)
		return diag_errno(diag, r, "%s", s->target);
	r = run_wait(&start, diag);
	return r > 0 ? diag_set(diag, -EIO, "%s cannot be exported", spec) : r;
}

int source_start(struct source *s, const char *spec, const struct options *o, struct diag *diag)
{
	int r = s->ours ? source_configure(s, spec, o, diag) : 0;

	if (r < 0)
		return r;
	return source_has_systemd() ? source_start_unit(s, diag)
				    : source_start_daemon(s, spec, o, diag);
}

/* The name of the export that a file is in: what stands between the directory of all exports and
 * the file. */
static bool source_of_file(const char *path, struct source *ret)
{
	char base[PATH_MAX], file[PATH_MAX];
	size_t n, len;

	instance_target("", base); /* ends with "/" */
	n = strlen(base);
	if (strncmp(path, base, n) != 0)
		return false;
	len = strcspn(path + n, "/");
	if (len == 0 || len > NAME_MAX || !path[n + len])
		return false;
	snprintf(ret->name, sizeof(ret->name), "%.*s", (int)len, path + n);
	instance_target(ret->name, ret->target);
	ret->lock = -1;
	ret->ours = access(instance_runtime_file(ret->name, file), F_OK) == 0;
	return true;
}

/* Where a loop device's file is; path: of the attribute in /sys. */
static bool source_of_attribute(const char *path, struct source *ret)
{
	_cleanup_free_ char *file = NULL;

	if (io_read_file(AT_FDCWD, path, PATH_MAX, &file, NULL) < 0)
		return false;
	file[strcspn(file, "\n")] = '\0';
	return source_of_file(file, ret);
}

bool source_of_loop(const char *device, struct source *ret)
{
	const char *slash = strrchr(device, '/');
	char path[PATH_MAX];

	if (strncmp(device, "/dev/", 5) != 0)
		return false;
	snprintf(path, sizeof(path), "/sys/block%s/loop/backing_file", slash);
	return source_of_attribute(path, ret) && ret->ours;
}

static bool source_in_use(const struct source *s)
{
	bool used = false;
	glob_t found;

	if (glob("/sys/block/loop*/loop/backing_file", GLOB_NOSORT, NULL, &found) != 0)
		return false;
	for (size_t i = 0; !used && i < found.gl_pathc; i++) {
		struct source other;

		used = source_of_attribute(found.gl_pathv[i], &other) &&
		       strcmp(other.name, s->name) == 0;
	}
	globfree(&found);
	return used;
}

/* Is there another mount? */
static bool source_is_mounted(const struct source *s)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	struct source other;

	if (mounts_read(&m) < 0)
		return true;
	for (size_t i = 0; i < m.n; i++)
		if (m.entries[i].source && source_of_loop(m.entries[i].source, &other) &&
		    strcmp(other.name, s->name) == 0)
			return true;
	return false;
}

/* The kernel lets go of a loop device a moment after its file system, or when the last program has
 * closed it that looks at new devices. */
static bool source_is_unused(const struct source *s)
{
	return !source_in_use(s);
}

static bool source_is_locked(const struct source *s)
{
	return flock(s->lock, LOCK_EX | LOCK_NB) == 0;
}

static bool source_wait(const struct source *s, bool (*is)(const struct source *s))
{
	const struct timespec step = {.tv_nsec = SOURCE_WAIT_STEP_MS * 1000000L};

	for (int i = 0; i < SOURCE_WAIT_STEPS; i++) {
		if (is(s))
			return true;
		nanosleep(&step, NULL);
	}
	return false;
}

/* Unless source_start() has done it. */
static bool source_lock(struct source *s)
{
	char path[PATH_MAX];

	if (s->lock >= 0)
		return true;
	s->lock = open(instance_runtime_file(s->name, path), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return s->lock >= 0 && source_wait(s, source_is_locked);
}

void source_release(struct source *s)
{
	struct run stop = {0};
	char unit[UNIT_NAME_SIZE];

	if (!s->ours || !source_lock(s) || source_is_mounted(s) ||
	    !source_wait(s, source_is_unused))
		return;
	if (source_has_systemd()) {
		/* The job may wait for ours: at shutdown the export is stopped behind the mount */
		stop = (struct run){.words = {"systemctl", "--no-ask-password", "--quiet",
					      "--no-block", "stop", "--",
					      needs_service(s->name, unit)},
				    .n = 7};
	} else {
		stop = (struct run){.words = {secure_getenv("FUSEIMG_PROGRAM") ?: FUSEIMG_PROGRAM,
					      "umount", "--", s->target},
				    .n = 4};
	}
	(void)run_wait(&stop, NULL);
}
