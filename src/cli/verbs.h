/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_VERBS_H
#define FUSEIMG_VERBS_H

/* What the verbs do. Each prints its result; on failure it returns negative errno and the sentence.
 */

#include "cli/command.h"

int verb_mount(struct command *c, struct diag *diag);
int verb_umount(struct command *c, struct diag *diag);
int verb_info(struct command *c, struct diag *diag);
int verb_map(struct command *c, struct diag *diag);
int verb_check(struct command *c, struct diag *diag);
int verb_serve(struct command *c, struct diag *diag);
int verb_check_config(struct command *c, struct diag *diag);
int verb_cleanup(struct command *c, struct diag *diag);
int verb_list(struct command *c, struct diag *diag);

#endif
