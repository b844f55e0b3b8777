/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
	LOG_TEXT_MAX = 2048,
	LOG_LINE_MAX = LOG_TEXT_MAX + 128, /* less than PIPE_BUF */
	LOG_FIELDS_MAX = 16,
	LOG_KERNEL_MAX = 900, /* PRINTK_MESSAGE_MAX less what the kernel puts before it */
};

static const char *log_program = "fuseimg";
static enum log_target log_target = LOG_TO_STDERR;
static bool log_to_journal; /* by way of standard error */
static unsigned log_lost;   /* to syslog, since the last that it took */

void log_init(const char *program, enum log_target target)
{
	log_program = program;
	log_target = target;
	log_to_journal = target == LOG_TO_STDERR && journald_has_stderr();
	tzset(); /* which reads a file: not when a file system of ours may be the one that hangs */
}

/* One write is one line of the log; the kernel refuses longer ones. */
static bool log_kernel(int priority, const char *text)
{
	_cleanup_close_ int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	char line[LOG_KERNEL_MAX];
	int n = snprintf(line, sizeof(line), "<%d>%s[%d]: %s", LOG_DAEMON | priority, log_program,
			 (int)getpid(), text);

	if (n >= (int)sizeof(line))
		n = (int)sizeof(line) - 1;
	return fd >= 0 && write(fd, line, (size_t)n) == n;
}

static bool log_syslog_send(int priority, const char *text)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const char *path = secure_getenv("FUSEIMG_SYSLOG_SOCKET") ?: "/dev/log";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char line[LOG_LINE_MAX], stamp[32] = "";
	time_t now = time(NULL);
	struct tm tm;
	int n;

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return false;
	strcpy(address.sun_path, path);
	if (localtime_r(&now, &tm))
		strftime(stamp, sizeof(stamp), "%h %e %T ", &tm); /* RFC 3164, section 4.1.2 */
	n = snprintf(line, sizeof(line), "<%d>%s%s[%d]: %s", LOG_DAEMON | priority, stamp,
		     log_program, (int)getpid(), text);
	if (n >= (int)sizeof(line))
		n = (int)sizeof(line) - 1;
	return sendto(fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address,
		      sizeof(address)) == n;
}

/*
 * In place of syslog(3), which waits for as long as nobody reads: whoever should may be waiting for
 * a file system of ours, which waits for us. What finds no room is lost, and that is said.
 */
static void log_syslog(int priority, const char *text)
{
	char lost[64];

	if (log_lost > 0) {
		snprintf(lost, sizeof(lost), "%u messages found no room in the log", log_lost);
		if (log_syslog_send(LOG_WARNING, lost))
			log_lost = 0;
	}
	if (!log_syslog_send(priority, text))
		log_lost++;
}

/* To the journal, with our name and the priority before the fields. */
static bool log_journal(int priority, const char *text, const struct journald_field *fields,
			size_t n)
{
	const char level[] = {(char)('0' + priority % 8), '\0'};
	struct journald_field all[LOG_FIELDS_MAX] = {
		{"MESSAGE", text},
		{"PRIORITY", level},
		{"SYSLOG_IDENTIFIER", log_program},
	};

	assert(n + 3 <= LOG_FIELDS_MAX);
	if (n > 0)
		memcpy(all + 3, fields, n * sizeof(*fields));
	return journald_send(all, n + 3) == 0;
}

/* Standard error may be a socket or a pipe whose other end does not read for a while: what waits
 * for us then must not wait for it. A pipe that can be written to takes PIPE_BUF bytes at once. */
static void log_stderr(int priority, const char *text)
{
	struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
	char line[LOG_LINE_MAX];
	int n;

	if (log_to_journal)
		n = snprintf(line, sizeof(line), "<%d>%s\n", priority % 8, text);
	else
		n = snprintf(line, sizeof(line), "%s: %s\n", log_program, text);
	if (n >= (int)sizeof(line))
		n = (int)sizeof(line) - 1;
	if (send(STDERR_FILENO, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    errno == ENOTSOCK && poll(&room, 1, 0) == 1 && (room.revents & POLLOUT))
		(void)!write(STDERR_FILENO, line, (size_t)n);
}

static void log_text(int priority, const char *text)
{
	if (log_target == LOG_TO_KERNEL && log_kernel(priority, text))
		return;
	if (log_target == LOG_TO_SYSLOG)
		log_syslog(priority, text);
	else
		log_stderr(priority, text);
}

void log_msg(int priority, const char *fmt, ...)
{
	char text[LOG_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_text(priority, text);
}

void log_event(int priority, const struct journald_field *fields, size_t n, const char *fmt, ...)
{
	char text[LOG_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if ((log_to_journal || log_target == LOG_TO_SYSLOG) &&
	    log_journal(priority, text, fields, n))
		return;
	log_text(priority, text);
}
