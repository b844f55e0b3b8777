/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Lists of host clusters. */

#include <errno.h>
#include <stdlib.h>

#include "format/qcow2.h"

int qcow2_runs_room(struct qcow2_runs *runs, size_t more)
{
	size_t room = runs->room ? runs->room : 16;
	struct qcow2_run *at;

	while (room < runs->n + more)
		room *= 2;
	if (room == runs->room)
		return 0;
	at = reallocarray(runs->at, room, sizeof(*at));
	if (!at)
		return -ENOMEM;
	runs->at = at;
	runs->room = room;
	return 0;
}

static bool qcow2_run_follows(const struct qcow2_run *a, const struct qcow2_run *b)
{
	return a->first + a->n == b->first && a->fresh == b->fresh;
}

int qcow2_runs_add(struct qcow2_runs *runs, const struct qcow2_run *run)
{
	int r;

	if (runs->n > 0 && qcow2_run_follows(&runs->at[runs->n - 1], run)) {
		runs->at[runs->n - 1].n += run->n;
		return 0;
	}
	r = qcow2_runs_room(runs, 1);
	if (r < 0)
		return r;
	runs->at[runs->n++] = *run;
	return 0;
}

int qcow2_runs_merge(struct qcow2_runs *runs, const struct qcow2_run *run)
{
	for (size_t i = 0; i < runs->n; i++) {
		struct qcow2_run *at = &runs->at[i];

		if (qcow2_run_follows(run, at)) {
			at->first = run->first;
			at->n += run->n;
			return 0;
		}
		if (qcow2_run_follows(at, run)) {
			at->n += run->n;
			return 0;
		}
	}
	return qcow2_runs_add(runs, run);
}

void qcow2_runs_done(struct qcow2_runs *runs)
{
	free(runs->at);
	*runs = (struct qcow2_runs){0};
}
