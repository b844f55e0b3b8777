/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mount-helper/helper.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "mount-helper/options.h"
#include "mount-helper/order.h"
#include "mount-helper/run.h"
#include "mount-helper/source.h"
#include "service/fstab.h"

struct mount_words {
	const char *spec, *dir, *options, *namespace;
	bool fake, no_mtab, verbose, help;
};

static const char mount_usage[] =
	"Usage: mount.fuseimg IMAGE|NAME DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]\n"
	"\n"
	"Mounts the file system that is in a disk image, or on one of its partitions;\n"
	"called by: mount -t fuseimg IMAGE DIR [-o part=1,ro,...]. See mount.fuseimg(8).\n";

static int mount_parse(int argc, char **argv, struct mount_words *ret, struct diag *diag)
{
	int c;

	opterr = 0;
	while ((c = getopt(argc, argv, "sfnvho:t:N:")) != -1) {
		switch (c) {
		case 's': /* options that we do not know are the file system's to judge */
		case 't': /* our name, by which we were found */
			break;
		case 'f':
			ret->fake = true;
			break;
		case 'n':
			ret->no_mtab = true;
			break;
		case 'v':
			ret->verbose = true;
			break;
		case 'h':
			ret->help = true;
			break;
		case 'o':
			ret->options = optarg;
			break;
		case 'N':
			ret->namespace = optarg;
			break;
		default:
			return diag_set(diag, -EINVAL, "-%c: no such option", optopt);
		}
	}
	if (ret->help)
		return 0;
	if (argc - optind != 2)
		return diag_set(diag, -EINVAL, "an image and a directory are needed");
	ret->spec = argv[optind];
	ret->dir = argv[optind + 1];
	return 0;
}

static void mount_add_flags(struct run *r, const struct mount_words *w)
{
	if (w->no_mtab)
		run_add(r, "-n");
	if (w->verbose)
		run_add(r, "-v");
	if (w->namespace) {
		run_add(r, "-N");
		run_add(r, w->namespace);
	}
}

/* mount(8) knows what is mounted there; /etc/fstab, which may have sent us, is not asked again. */
static int mount_again(const struct mount_words *w, const struct options *o, struct diag *diag)
{
	struct run r = {.words = {"mount", "--options-source=disable"}, .n = 2};
	_cleanup_free_ char *options = NULL;

	if (asprintf(&options, "remount,%s", o->inner) < 0)
		return diag_errno(diag, -ENOMEM, "options");
	mount_add_flags(&r, w);
	run_add(&r, "-o");
	run_add(&r, options);
	run_add(&r, "--");
	run_add(&r, w->dir);
	return run_wait(&r, diag);
}

/* Over a loop device. Which umount helper belongs to it is remembered for umount(8). */
static int mount_inner(const struct mount_words *w, const struct options *o, const struct source *s,
		       const char *what, struct diag *diag)
{
	struct run r = {.words = {"mount"}, .n = 1};
	_cleanup_free_ char *options = NULL;

	if (asprintf(&options, "%s,loop%s", o->inner, s->ours ? ",helper=fuseimg" : "") < 0)
		return diag_errno(diag, -ENOMEM, "options");
	mount_add_flags(&r, w);
	if (strcmp(o->fstype, "auto") != 0) {
		run_add(&r, "-t");
		run_add(&r, o->fstype);
	}
	run_add(&r, "-o");
	run_add(&r, options);
	run_add(&r, "--");
	run_add(&r, what);
	run_add(&r, w->dir);
	return run_wait(&r, diag);
}

static bool mount_has_partitions(const struct source *s)
{
	char first[PATH_MAX + 8];

	snprintf(first, sizeof(first), "%s/part1", s->target);
	return access(first, F_OK) == 0;
}

static int mount_part(const struct mount_words *w, const struct options *o, const struct source *s,
		      struct diag *diag)
{
	_cleanup_free_ char *what = NULL;
	int r;

	if (asprintf(&what, "%s/%s", s->target, o->part ?: "disk") < 0)
		return diag_errno(diag, -ENOMEM, "%s", w->spec);
	if (access(what, F_OK) < 0 && errno == ENOENT)
		return diag_set(diag, -ENOENT,
				"part=%s: there is no such partition on the disk in %s (fuseimg "
				"info lists them)",
				o->config.boot.partition ?: "", w->spec);
	r = mount_inner(w, o, s, what, diag);
	if (r > 0 && !o->part && mount_has_partitions(s))
		diag_set(diag, -EIO,
			 "the disk in %s has partitions (fuseimg info lists them): -o part=1 "
			 "mounts the first",
			 w->spec);
	return r;
}

static int mount_new(const struct mount_words *w, const struct options *o, struct diag *diag)
{
	struct source s;
	int r = source_init(&s, w->spec, o, diag);

	if (r < 0 || w->fake)
		return r;
	order_write(&s, w->spec, w->dir);
	r = source_start(&s, w->spec, o, diag);
	if (r == 0) {
		r = mount_part(w, o, &s, diag);
		if (r != 0)
			source_release(&s);
	}
	source_done(&s);
	return r;
}

/* mount(8) resolves links before it calls us. The generator, which cannot, has named the export by
 * what stands in /etc/fstab: so do we, where it is the same file. */
static int mount_as_in_fstab(const struct mount_words *w, char **spec)
{
	_cleanup_(fstab_done) struct fstab fstab = {0};
	const struct fstab_entry *e;
	_cleanup_free_ char *real = NULL;
	char *same;

	if (fstab_load(&fstab, NULL) < 0)
		return 0;
	e = fstab_find(&fstab, w->dir);
	real = e && e->spec[0] == '/' ? realpath(e->spec, NULL) : NULL;
	if (!real || strcmp(real, *spec) != 0)
		return 0;
	same = strdup(e->spec);
	if (!same)
		return -ENOMEM;
	free(*spec);
	*spec = same;
	return 0;
}

/* By hand the path may be relative; a name of an export has no "/". */
static int mount_resolve(struct mount_words *w, char **ret, struct diag *diag)
{
	int r = 0;

	if (!strchr(w->spec, '/'))
		return 0;
	*ret = realpath(w->spec, NULL);
	r = *ret ? mount_as_in_fstab(w, ret) : -errno;
	if (r < 0)
		return diag_errno(diag, r, "%s", w->spec);
	w->spec = *ret;
	return 0;
}

int helper_mount(int argc, char **argv, struct diag *diag)
{
	_cleanup_(options_done) struct options o = {0};
	_cleanup_free_ char *real = NULL;
	struct mount_words w = {0};
	int r = mount_parse(argc, argv, &w, diag);

	if (r == 0 && w.help) {
		fputs(mount_usage, stdout);
		return HELPER_OK;
	}
	if (r == 0)
		r = options_parse(w.options, &o, diag);
	if (r < 0)
		return HELPER_USAGE;
	if (geteuid() != 0) {
		diag_set(diag, -EPERM,
			 "only root can mount what is in an image; anybody can have the disk as a "
			 "file: fuseimg mount IMAGE TARGET");
		return HELPER_USAGE;
	}
	if (o.remount)
		r = w.fake ? 0 : mount_again(&w, &o, diag);
	else
		r = mount_resolve(&w, &real, diag) < 0 ? diag->error : mount_new(&w, &o, diag);
	return r < 0 ? HELPER_FAILED : r;
}
