/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SOURCE_H
#define FUSEIMG_SOURCE_H

/*
 * The export that a mount stands on.
 *
 * With systemd it is an instance of fuseimg@.service: a daemon of our own would live in the cgroup
 * of whoever called mount(8), be it a .mount unit or a person's session, and die with that. What
 * the service is to show stands in a file for this boot (instance_runtime_file()); nobody changes
 * it while the export runs, and two mounts of one image share one export.
 *
 * Without systemd, `fuseimg mount` runs in the background.
 */

#include <limits.h>
#include <stdbool.h>

#include "base/diag.h"
#include "mount-helper/options.h"
#include "service/instance.h"

struct source {
	char name[NAME_MAX + 1];
	char target[PATH_MAX]; /* directory of the export */
	bool ours;	       /* made for an image; else it has a configuration of its own */
	int lock;	       /* on its configuration, see source_start(); -1: none */
};

/* spec: the path of an image, or the name (without "/") of an export that has a configuration. */
int source_init(struct source *s, const char *spec, const struct options *o, struct diag *diag);

/*
 * Makes the export stand; returns when it can be used. One of ours is locked from here to
 * source_done(): until there is a loop device on it, an unmount of the same image that goes on
 * beside us would find nobody who uses it, and stop it.
 */
int source_start(struct source *s, const char *spec, const struct options *o, struct diag *diag);

void source_done(struct source *s);

/* The export of ours (s->ours) that a loop device ("/dev/loop7") stands on. False: none. */
bool source_of_loop(const char *device, struct source *ret);

/* Stops an export of ours that no loop device stands on any more; waits a moment for one that is
 * just going. Does not wait for the end of the export. Where somebody else has it locked for long,
 * it is theirs to stop: they mount it, and what fails there ends here, too. */
void source_release(struct source *s);

#endif
