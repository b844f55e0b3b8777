/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mount-helper/run.h"

#include <assert.h>
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* At boot, and for a unit of systemd, there may be none */
static const char run_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

void run_add(struct run *r, const char *word)
{
	assert(r->n < RUN_WORDS_MAX);
	r->words[r->n++] = word;
}

int run_wait(struct run *r, struct diag *diag)
{
	int status, error;
	pid_t pid;

	if (setenv("PATH", run_path, 1) < 0)
		return diag_errno(diag, -errno, "%s", r->words[0]);
	error = posix_spawnp(&pid, r->words[0], NULL, NULL, (char **)r->words, environ);
	if (error)
		return diag_errno(diag, -error, "%s cannot be run", r->words[0]);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return diag_errno(diag, -errno, "%s", r->words[0]);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
