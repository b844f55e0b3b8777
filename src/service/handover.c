/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/handover.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define HANDOVER_VARIABLE "FUSEIMG_HANDOVER"

enum {
	HANDOVER_TEXT_MAX = HANDOVER_MAX * (HANDOVER_NAME_MAX + 12) + 32,
	HANDOVER_PAUSE_MS = 10, /* while the manager's queue is full, */
	HANDOVER_SETTLE_MS = 5000,
};

static void handover_enter(struct handover *h, const char *name, int fd)
{
	if (h->n == HANDOVER_MAX || strlen(name) >= HANDOVER_NAME_MAX ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		close(fd);
		return;
	}
	snprintf(h->fds[h->n].name, HANDOVER_NAME_MAX, "%s", name);
	h->fds[h->n++].fd = fd;
}

/* The value of the variable when it is meant for this process: "PID NAME=FD NAME=FD ...". */
static const char *handover_text(void)
{
	const char *text = getenv(HANDOVER_VARIABLE);
	char *end;

	if (!text || strtol(text, &end, 10) != getpid() || (*end && *end != ' '))
		return NULL;
	return end;
}

bool handover_expected(void)
{
	const char *text = handover_text();

	return text ? strstr(text, " life=") != NULL : sd_listen_fds(0) > 0;
}

static void handover_receive_exec(struct handover *h)
{
	const char *text = handover_text();
	char name[HANDOVER_NAME_MAX];
	int fd, used;

	h->by_exec = text;
	while (text && sscanf(text, " %23[^= ]=%d%n", name, &fd, &used) == 2) {
		text += used;
		if (fd > STDERR_FILENO && fcntl(fd, F_GETFD) >= 0)
			handover_enter(h, name, fd);
	}
	unsetenv(HANDOVER_VARIABLE);
}

static void handover_receive_store(struct handover *h)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);

	for (int i = 0; i < n; i++) {
		handover_enter(h, names && names[i] ? names[i] : "", SD_LISTEN_FDS_START + i);
		if (names)
			free(names[i]);
	}
	free(names);
}

void handover_receive(struct handover *ret)
{
	*ret = (struct handover){};
	handover_receive_exec(ret);
	handover_receive_store(ret);
}

int handover_take_prefix(struct handover *h, const char *prefix, char *ret_rest)
{
	size_t len = strlen(prefix);

	for (unsigned i = 0; i < h->n; i++) {
		if (!h->fds[i].name[0] || strncmp(h->fds[i].name, prefix, len) != 0)
			continue;
		strcpy(ret_rest, h->fds[i].name + len);
		h->fds[i].name[0] = '\0';
		return TAKE_FD(h->fds[i].fd);
	}
	return -1;
}

int handover_find(const struct handover *h, const char *name)
{
	for (unsigned i = 0; i < h->n; i++)
		if (strcmp(h->fds[i].name, name) == 0)
			return h->fds[i].fd;
	return -1;
}

int handover_take(struct handover *h, const char *name)
{
	for (unsigned i = 0; i < h->n; i++)
		if (*name && strcmp(h->fds[i].name, name) == 0) {
			h->fds[i].name[0] = '\0';
			return TAKE_FD(h->fds[i].fd);
		}
	return -1;
}

void handover_done(struct handover *h)
{
	for (unsigned i = 0; i < h->n; i++)
		closep(&h->fds[i].fd);
	h->n = 0;
}

void handover_add(struct handover *h, int fd, const char *fmt, ...)
{
	va_list ap;

	if (fd < 0)
		return;
	assert(h->n < HANDOVER_MAX);
	va_start(ap, fmt);
	vsnprintf(h->fds[h->n].name, HANDOVER_NAME_MAX, fmt, ap);
	va_end(ap);
	h->fds[h->n++].fd = fd;
}

static int handover_set_environment(const struct handover *h)
{
	_cleanup_free_ char *text = malloc(HANDOVER_TEXT_MAX);
	int n;

	if (!text)
		return -ENOMEM;
	n = snprintf(text, HANDOVER_TEXT_MAX, "%d", (int)getpid());
	for (unsigned i = 0; i < h->n; i++)
		n += snprintf(text + n, (size_t)(HANDOVER_TEXT_MAX - n), " %s=%d", h->fds[i].name,
			      h->fds[i].fd);
	return setenv(HANDOVER_VARIABLE, text, 1) < 0 ? -errno : 0;
}

int handover_exec(const struct handover *h, const char *program, char *const argv[])
{
	int r = handover_set_environment(h);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < h->n; i++)
		(void)fcntl(h->fds[i].fd, F_SETFD, 0);
	execv(program, argv);
	r = -errno;
	for (unsigned i = 0; i < h->n; i++)
		(void)fcntl(h->fds[i].fd, F_SETFD, FD_CLOEXEC);
	unsetenv(HANDOVER_VARIABLE);
	return r;
}

/*
 * FDPOLL=0: otherwise systemd polls what it stores, and every request of every client would wake
 * process 1 once for each clone (a waiter on /dev/fuse is woken whatever it waits for).
 */
int handover_store(const struct notify *n, const char *name, int fd, unsigned *patience)
{
	const struct timespec pause = {.tv_nsec = HANDOVER_PAUSE_MS * 1000000};
	char text[64 + HANDOVER_NAME_MAX];
	int r;

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	while ((r = notify_send_fds(n, &fd, 1, text)) == -EAGAIN && *patience > 0) {
		nanosleep(&pause, NULL);
		(*patience)--;
	}
	return r;
}

void handover_unstore(struct notify *n, const char *name)
{
	notify_state(n, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

void handover_settle(const struct notify *n)
{
	(void)notify_barrier(n, HANDOVER_SETTLE_MS);
}
