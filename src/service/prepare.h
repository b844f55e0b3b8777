/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_PREPARE_H
#define FUSEIMG_PREPARE_H

/*
 * The first part of a reload, done by a child of the supervisor that runs the program which is
 * installed by now: can it go on with this session, and does the configuration fit a mount that is
 * up? While it thinks, the old worker serves; what it touches may hang without harm. What it finds
 * becomes an offer: the state as it would be.
 */

#include "service/handover.h"
#include "service/supervisor.h"

/* 0: h's "offer" holds the offer. Else negative errno and the sentence for the journal. */
int prepare_run(const struct supervisor_options *options, struct handover *h, struct diag *diag);

#endif
