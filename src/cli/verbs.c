/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include <errno.h>
#include <string.h>

#include "base/parse.h"

static int take_keys(struct command *c, const char *value, struct diag *diag)
{
	int r = config_parse_options(&c->config, value, diag);

	if (r == 0 && c->config.image)
		return diag_set(diag, -EINVAL, "The image is an argument, not a key of -o");
	return r;
}

/* What matters where an image is only looked at. The others are taken too, so that the options of a
 * mount fit everywhere. */
static const char *const look_keys[] = {"format", "snapshot", "backing", NULL};

static const char *const check_keys[] = {"format", "lock", "lock_wait", NULL};

static int take_repair(struct command *c, const char *value, struct diag *diag)
{
	if (!value || strcmp(value, "all") == 0)
		c->repair = CHECK_REPAIR_ALL;
	else if (strcmp(value, "leaks") == 0)
		c->repair = CHECK_REPAIR_LEAKS;
	else
		return diag_set(diag, -EINVAL, "--repair=%s: allowed are leaks and all", value);
	return 0;
}

static int take_save_dir(struct command *c, const char *value, struct diag *diag)
{
	c->save_dir = value;
	return 0;
}

static int take_undo(struct command *c, const char *value, struct diag *diag)
{
	c->undo = value;
	return 0;
}

static int take_foreground(struct command *c, const char *value, struct diag *diag)
{
	c->foreground = true;
	return 0;
}

static int take_verbose(struct command *c, const char *value, struct diag *diag)
{
	c->verbose = true;
	return 0;
}

static int take_json(struct command *c, const char *value, struct diag *diag)
{
	c->json = true;
	return 0;
}

static int take_timeout(struct command *c, const char *value, struct diag *diag)
{
	uint64_t seconds;

	if (parse_u64(value, 1000000, &seconds) < 0)
		return diag_set(diag, -EINVAL,
				"--timeout=%s is not a number of seconds (0 to 1000000)", value);
	c->timeout_ms = (int)seconds * 1000;
	return 0;
}

static const struct command_option option_keys = {
	.name = "options",
	.letter = 'o',
	.value = "KEY=VALUE,...",
	.help = "How to export the image, see below",
	.take = take_keys,
	.keys = command_all_keys,
};
static const struct command_option option_look_keys = {
	.name = "options",
	.letter = 'o',
	.value = "KEY=VALUE,...",
	.help = "How to open the image, see below",
	.take = take_keys,
	.keys = look_keys,
};
static const struct command_option option_check_keys = {
	.name = "options",
	.letter = 'o',
	.value = "KEY=VALUE,...",
	.help = "How to open the image, see below",
	.take = take_keys,
	.keys = check_keys,
};
static const struct command_option option_repair = {
	.name = "repair",
	.value = "leaks|all",
	.help = "Repair: only give back space that nothing uses (leaks), or everything",
	.take = take_repair,
	.optional = true,
};
static const struct command_option option_save_dir = {
	.name = "save-dir",
	.value = "DIR",
	.help = "Where to save what a repair overwrites, instead of beside the image",
	.take = take_save_dir,
};
static const struct command_option option_undo = {
	.name = "undo",
	.value = "FILE",
	.help = "Put back what a repair has saved",
	.take = take_undo,
};
static const struct command_option option_foreground = {
	"foreground", 'f', NULL, "Serve from this process, until it is unmounted or Ctrl-C",
	take_foreground};
static const struct command_option option_verbose = {
	"verbose", 'v', NULL, "Say what was done, also when no terminal looks on", take_verbose};
static const struct command_option option_json = {"json", 'j', NULL, "Print JSON", take_json};
static const struct command_option option_timeout = {
	"timeout", 't', "SECONDS", "Try and wait no longer than this", take_timeout};

const struct verb verbs[] = {
	{
		.name = "mount",
		.words = "IMAGE TARGET",
		.n_words = 2,
		.help = "Show a disk image as a raw file",
		.options = {&option_keys, &option_foreground, &option_verbose},
		.run = verb_mount,
	},
	{
		.name = "umount",
		.words = "TARGET",
		.n_words = 1,
		.help = "Unmount it; done when all data is on stable storage",
		.options = {&option_timeout, &option_verbose},
		.run = verb_umount,
	},
	{
		.name = "info",
		.words = "IMAGE",
		.n_words = 1,
		.help = "Show what an image is",
		.options = {&option_look_keys, &option_json},
		.run = verb_info,
	},
	{
		.name = "map",
		.words = "IMAGE",
		.n_words = 1,
		.help = "Show where the bytes of an image stand",
		.options = {&option_look_keys, &option_json},
		.run = verb_map,
	},
	{
		.name = "check",
		.words = "IMAGE",
		.n_words = 1,
		.help = "Look for errors in an image, and repair them",
		.options = {&option_check_keys, &option_repair, &option_save_dir, &option_undo,
			    &option_json},
		.run = verb_check,
	},
	{
		.name = "serve",
		.words = "NAME",
		.n_words = 1,
		.help = "Be the service fuseimg@NAME: export what /etc/fuseimg/NAME.conf says",
		.run = verb_serve,
	},
	{
		.name = "check-config",
		.words = "NAME|FILE",
		.n_words = 1,
		.help = "Check the configuration of such a service",
		.options = {&option_json, &option_verbose},
		.shows_settings = true,
		.run = verb_check_config,
	},
	{
		.name = "cleanup",
		.words = "NAME",
		.n_words = 1,
		.help = "Take away the mount of a service that is dead",
		.options = {&option_verbose},
		.run = verb_cleanup,
	},
	{
		.name = "list",
		.words = "",
		.n_words = 0,
		.help = "Show the exports that run",
		.options = {&option_json},
		.run = verb_list,
	},
	{},
};
