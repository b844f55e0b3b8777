/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the unit fuseimg-cleanup@.service does after an export has failed for good: a mount that
 * nobody serves would stand in everybody's way, also in that of services which have nothing to do
 * with it (a dead mount fails the set-up of their mount namespaces).
 */

#include "cli/verbs.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/output.h"
#include "service/instance.h"
#include "service/target.h"

int verb_cleanup(struct command *c, struct diag *diag)
{
	bool cleaned = false, detached = false;
	char target[PATH_MAX];
	int r = instance_check(c->words[0], diag);

	if (r < 0) {
		c->status = COMMAND_EXIT_CONFIG;
		return r;
	}
	instance_target(c->words[0], target);
	/* One whose descriptors are in systemd's fd store does not answer that it is dead: somebody
	 * may go on with it */
	r = target_clean(target, &cleaned, &detached, diag);
	if (r < 0)
		return r;
	if (cleaned)
		rmdir(target);
	if (c->verbose || output_is_terminal()) {
		output_name(target);
		puts(!cleaned ? ": there is nothing to clean up"
		     : detached
			     ? ": the dead mount was in use and is detached; its users get errors"
			     : ": the dead mount is gone");
	}
	return 0;
}
