/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mount-helper/helper.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mounts.h"
#include "mount-helper/run.h"
#include "mount-helper/source.h"

static const char umount_usage[] =
	"Usage: umount.fuseimg DIR [-flnrv] [-N NAMESPACE]\n"
	"\n"
	"Unmounts what mount.fuseimg has mounted; called by umount(8).\n";

/* The words for umount(8), which is to do the work itself (-i). *ret_dir: NULL after -h. */
static int umount_parse(int argc, char **argv, struct run *ret, const char **ret_dir,
			struct diag *diag)
{
	int c;

	opterr = 0;
	run_add(ret, "umount");
	run_add(ret, "-i");
	while ((c = getopt(argc, argv, "flnrvhN:t:")) != -1) {
		static const char *const flags[] = {
			['f'] = "-f", ['l'] = "-l", ['n'] = "-n", ['r'] = "-r", ['v'] = "-v"};

		if (c == 'h')
			return 0;
		if (c == '?')
			return diag_set(diag, -EINVAL, "-%c: no such option", optopt);
		if (c == 'N') {
			run_add(ret, "-N");
			run_add(ret, optarg);
		} else if (c != 't' && ret->n < RUN_WORDS_MAX - 4) {
			run_add(ret, flags[c]);
		}
	}
	if (argc - optind != 1)
		return diag_set(diag, -EINVAL, "one directory is needed");
	*ret_dir = argv[optind];
	run_add(ret, "--");
	run_add(ret, *ret_dir);
	return 0;
}

/* The export below a mount point. Asks the mount table alone, so that nothing can hang. */
static bool umount_find(const char *dir, struct source *ret)
{
	_cleanup_(mounts_done) struct mounts m = {0};
	const struct mounts_entry *e = mounts_read(&m) < 0 ? NULL : mounts_at(&m, dir);

	return e && e->source && source_of_loop(e->source, ret);
}

int helper_umount(int argc, char **argv, struct diag *diag)
{
	struct run r = {0};
	const char *dir = NULL;
	struct source s;
	bool found;
	int status;

	if (umount_parse(argc, argv, &r, &dir, diag) < 0)
		return HELPER_USAGE;
	if (!dir) {
		fputs(umount_usage, stdout);
		return HELPER_OK;
	}
	found = umount_find(dir, &s);
	status = run_wait(&r, diag);
	if (status == 0 && found) {
		source_release(&s);
		source_done(&s);
	}
	return status < 0 ? HELPER_FAILED : status;
}
