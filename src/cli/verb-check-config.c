/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/locate.h"
#include "cli/output.h"
#include "service/config-file.h"
#include "service/instance.h"

/* What is on the command line: a name, or (with a / in it) the path of a file. */
static int check_config_path(const char *word, char path[PATH_MAX], struct diag *diag)
{
	int r;

	if (strchr(word, '/')) {
		snprintf(path, PATH_MAX, "%s", word);
		return 0;
	}
	r = instance_check(word, diag);
	if (r == 0)
		instance_find_file(word, path);
	return r;
}

static int check_config_add(void *data, const struct env_file_pair *pair, struct diag *diag)
{
	output_json_add(data, pair->key, output_json_string(pair->value));
	return 0;
}

/* The settings as they were read: what stands in the file, without quotes. */
static int check_config_json(const char *path, struct diag *diag)
{
	_cleanup_json_ struct json_object *o = json_object_new_object();
	struct json_object *settings = json_object_new_object();
	int r;

	output_json_add(o, "file", output_json_string(path));
	output_json_add(o, "settings", settings);
	r = config_file_visit(path, check_config_add, settings, diag);
	if (r == 0)
		output_json(o, true);
	return r;
}

/* Can the image be had as it is wanted? Nothing is read from it. */
static int check_config_image(const struct config *config, const char *path, struct diag *diag)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *image = NULL;
	/* For reading: who closes a block device that was open for writing wakes udev */
	const struct locate_how how = {.direct = config->direct_io, .settings = path};
	int r = locate_open_image(config->image, &how, &fd, &image, diag);

	if (r < 0) {
		diag_prefix(diag, "%s: IMAGE", path);
		return r;
	}
	if (!config->read_only && faccessat(AT_FDCWD, image, W_OK, AT_EACCESS) < 0)
		return diag_errno(diag, -errno,
				  "%s: IMAGE: %s can be read but not written, and READ_ONLY=yes is "
				  "not there",
				  path, image);
	return 0;
}

int verb_check_config(struct command *c, struct diag *diag)
{
	_cleanup_(config_done) struct config config = {0};
	char path[PATH_MAX];
	int r = check_config_path(c->words[0], path, diag);

	if (r == 0)
		r = config_file_read(path, &config, diag);
	if (r == -ENOENT && !strchr(c->words[0], '/'))
		diag_set(diag, r,
			 "%s: there is no such file; one elsewhere is named with a / in it", path);
	if (r < 0) {
		c->status = COMMAND_EXIT_CONFIG;
		return r;
	}
	r = check_config_image(&config, path, diag);
	if (r < 0)
		return r;
	if (c->json)
		return check_config_json(path, diag);
	if (c->verbose || output_is_terminal()) {
		output_name(path);
		puts(": good");
	}
	return 0;
}
