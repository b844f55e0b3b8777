/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cli/daemon.h"
#include "cli/output.h"
#include "service/supervisor.h"

/* The daemon leaves this directory. What is at the paths is the supervisor's to judge. */
static int mount_absolute(const char *path, char **ret, struct diag *diag)
{
	_cleanup_free_ char *cwd = NULL;

	if (path[0] == '/')
		return (*ret = strdup(path)) ? 0 : diag_errno(diag, -ENOMEM, "%s", path);
	cwd = getcwd(NULL, 0);
	if (!cwd)
		return diag_errno(diag, -errno, "Cannot tell which directory %s is in", path);
	return asprintf(ret, "%s/%s", cwd, path) < 0 ? diag_errno(diag, -ENOMEM, "%s", path) : 0;
}

/* One line for the person who typed the command. */
static void mount_tell(const char *target)
{
	struct stat st;

	fputs("The raw image stands at ", stdout);
	output_name(target);
	puts(stat(target, &st) == 0 && S_ISDIR(st.st_mode) ? "/disk" : "");
	fflush(stdout);
}

struct mount_foreground {
	const char *target;
	bool tell;
	bool was_ready;
};

static void mount_ready(void *data, int error, const struct diag *diag)
{
	struct mount_foreground *f = data;

	f->was_ready = error == 0;
	if (f->was_ready && f->tell)
		mount_tell(f->target);
}

/* The command line that a reload executes: it stays in this process. One that says so already is
 * taken as it is. */
static char **mount_again(char **argv, bool says_so)
{
	static char foreground[] = "--foreground";
	size_t n = 0;
	char **again;

	while (argv[n])
		n++;
	again = calloc(n + 2, sizeof(*again));
	if (!again)
		return NULL;
	if (says_so)
		return memcpy(again, argv, n * sizeof(*again));
	memcpy(again, argv, 2 * sizeof(*again));
	again[2] = foreground;
	memcpy(again + 3, argv + 2, (n - 2) * sizeof(*again));
	return again;
}

int verb_mount(struct command *c, struct diag *diag)
{
	bool tell = c->verbose || output_is_terminal();
	_cleanup_free_ char *image = NULL, *target = NULL;
	_cleanup_free_ char **again = mount_again(c->argv, c->foreground);
	struct mount_foreground foreground;
	struct supervisor_options options;
	int r = mount_absolute(c->words[0], &image, diag);

	if (r == 0)
		r = config_set(&c->config, "image", image, diag);
	if (r == 0)
		r = mount_absolute(c->words[1], &target, diag);
	if (r < 0)
		return r;
	foreground = (struct mount_foreground){.target = target, .tell = tell};
	options = (struct supervisor_options){
		.config = &c->config,
		.target = target,
		.ready = mount_ready,
		.ready_data = &foreground,
		.argv = again,
		.fixed = true,
	};
	if (c->foreground) {
		log_init("fuseimg", LOG_TO_STDERR);
		c->reported = true; /* the supervisor logs how it ends */
		return supervisor_run(&options, diag);
	}
	r = daemon_start(&options, diag);
	if (r == 0 && tell)
		mount_tell(target);
	return r;
}
