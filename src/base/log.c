/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
	LOG_TEXT_MAX = 2048,
	LOG_LINE_MAX = LOG_TEXT_MAX + 64,
	LOG_FIELDS_MAX = 16,
	LOG_KERNEL_MAX = 900, /* PRINTK_MESSAGE_MAX less what the kernel puts before it */
};

static const char *log_program = "fuseimg";
static enum log_target log_target = LOG_TO_STDERR;
static bool log_to_journal; /* by way of standard error */

void log_init(const char *program, enum log_target target)
{
	log_program = program;
	log_target = target;
	log_to_journal = target == LOG_TO_STDERR && journald_has_stderr();
	if (target == LOG_TO_SYSLOG)
		openlog(program, LOG_PID, LOG_DAEMON);
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

/* Standard error may be a socket whose other end does not read for a while: what waits for us then
 * must not wait for it. */
static void log_stderr(int priority, const char *text)
{
	char line[LOG_LINE_MAX];
	int n;

	if (log_to_journal)
		n = snprintf(line, sizeof(line), "<%d>%s\n", priority % 8, text);
	else
		n = snprintf(line, sizeof(line), "%s: %s\n", log_program, text);
	if (n >= (int)sizeof(line))
		n = (int)sizeof(line) - 1;
	if (send(STDERR_FILENO, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    errno == ENOTSOCK)
		fputs(line, stderr);
}

static void log_text(int priority, const char *text)
{
	if (log_target == LOG_TO_KERNEL && log_kernel(priority, text))
		return;
	if (log_target == LOG_TO_SYSLOG)
		syslog(priority, "%s", text);
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
