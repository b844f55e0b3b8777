/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* fuseimg: disk images as raw files. Exit status: 0 done, 1 failed, 2 the command line or a
 * configuration file is wrong; check has more. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/command.h"
#include "cli/output.h"
#include "config.h"

enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = COMMAND_EXIT_CONFIG,
};

static int main_complain(const struct diag *diag)
{
	fprintf(stderr, "fuseimg: %s\n", diag->text[0] ? diag->text : strerror(-diag->error));
	return EXIT_FAILED;
}

static int main_usage(const struct verb *v, const struct diag *diag)
{
	main_complain(diag);
	fprintf(stderr, "Try \"fuseimg %s%s--help\"\n", v ? v->name : "", v ? " " : "");
	return EXIT_USAGE;
}

static int main_verb(const struct verb *v, char **argv)
{
	_cleanup_(command_done) struct command command;
	struct diag diag = {};
	int r = command_init(&command);

	command.argv = argv;
	if (r == 0 && command_parse(&command, v, argv + 2, &diag) < 0)
		return main_usage(v, &diag);
	if (r == 0 && command.help)
		command_help_verb(stdout, v);
	else if (r == 0)
		r = v->run(&command, &diag);
	if (r == 0)
		r = output_finish(&diag);
	if (r == 0)
		return command.status;
	diag.error = r;
	if (!command.reported)
		main_complain(&diag);
	return command.status ?: EXIT_FAILED;
}

int main(int argc, char **argv)
{
	const char *first = argc > 1 ? argv[1] : "";
	const struct verb *v = NULL;
	struct diag diag = {};

	if (argc < 2) {
		command_help(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(first, "--version") == 0) {
		printf("fuseimg %s\n", FUSEIMG_VERSION);
	} else if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
		command_help(stdout);
	} else {
		v = command_find_verb(first, &diag);
		return v ? main_verb(v, argv) : main_usage(NULL, &diag);
	}
	return output_finish(&diag) < 0 ? main_complain(&diag) : EXIT_DONE;
}
