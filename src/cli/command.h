/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_COMMAND_H
#define FUSEIMG_COMMAND_H

/*
 * What a person typed: a verb, its options and its words. verbs.c has the tables, command.c reads a
 * command line by them and prints the help that follows from them; the verb-*.c files act.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/diag.h"
#include "format/format.h"
#include "service/config.h"

enum {
	COMMAND_WORDS_MAX = 2,
	COMMAND_OPTIONS_MAX = 6,
	/* the command line is wrong, or the file that it stands for */
	COMMAND_EXIT_CONFIG = 2,
};

/* All that the options of any verb can set. */
struct command {
	struct config config; /* -o */
	bool foreground;
	bool verbose;
	bool json;
	bool help;
	int timeout_ms; /* -1: none given */
	bool reported;	/* a failure has been told already */
	int status;	/* exit status; 0 behind a failure: that of a failure */
	/* check */
	enum check_repair repair;
	const char *undo;     /* file of saved metadata to put back; NULL: check */
	const char *save_dir; /* NULL: beside the image */
	char **argv;	      /* all of the command line */
	const char *words[COMMAND_WORDS_MAX];
	unsigned n_words;
};

struct command_option {
	const char *name;  /* long, without "--" */
	char letter;	   /* 0: none */
	const char *value; /* what --help calls its value; NULL: takes none */
	const char *help;
	int (*take)(struct command *c, const char *value, struct diag *diag);
	/* The keys of config.h that stand in its value, NULL-terminated; NULL: none do */
	const char *const *keys;
	bool optional; /* the value may be left out, and is NULL then; else it stands behind "=" */
};

/* Every key that an export has. */
extern const char *const command_all_keys[];

struct verb {
	const char *name;
	const char *words; /* "IMAGE TARGET" */
	unsigned n_words;  /* all of them are required */
	const char *help;
	const struct command_option *options[COMMAND_OPTIONS_MAX]; /* NULL behind the last */
	bool shows_settings; /* --help lists the keys of a configuration file */
	int (*run)(struct command *c, struct diag *diag);
};

/* NULL-terminated, in the order of --help. */
extern const struct verb verbs[];

int command_init(struct command *c);
void command_done(struct command *c);

/* The verb of that name, or NULL with a sentence (and a suggestion) in diag. */
const struct verb *command_find_verb(const char *name, struct diag *diag);

/* Reads what stands behind the verb. -EINVAL with a sentence: the command line is wrong. With
 * --help the words are not counted. */
int command_parse(struct command *c, const struct verb *v, char **args, struct diag *diag);

/* What --help prints: of the program, and of a verb. */
void command_help(FILE *f);
void command_help_verb(FILE *f, const struct verb *v);

#endif
