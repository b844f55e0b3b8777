/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/systemctl.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"

enum {
	SYSTEMCTL_WORDS_MAX = 8,
};

static int systemctl_spawn(const char *const words[], int out)
{
	const char *argv[SYSTEMCTL_WORDS_MAX + 2] = {"systemctl"};
	posix_spawn_file_actions_t actions;
	pid_t pid;
	int r;

	for (size_t i = 0; words[i]; i++) {
		assert(i < SYSTEMCTL_WORDS_MAX);
		argv[i + 1] = words[i];
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, (char **)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return r ? -r : pid;
}

void systemctl_ask(const char *const words[], char *answer, size_t size)
{
	int out[2], pid;
	ssize_t n = 0;

	answer[0] = '\0';
	if (pipe2(out, O_CLOEXEC) < 0)
		return;
	pid = systemctl_spawn(words, out[1]);
	close(out[1]);
	if (pid > 0)
		n = io_read(out[0], answer, size - 1);
	close(out[0]);
	answer[n > 0 ? n : 0] = '\0';
	answer[strcspn(answer, "\n")] = '\0';
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

void systemctl_show(const char *unit, const char *property, char *answer, size_t size)
{
	char which[64];
	const char *const words[] = {"show", which, "--value", "--", unit, NULL};

	snprintf(which, sizeof(which), "--property=%s", property);
	systemctl_ask(words, answer, size);
}
