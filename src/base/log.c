/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
	LOG_KERNEL_MAX = 900, /* PRINTK_MESSAGE_MAX less what the kernel puts before it */
};

static const char *log_program = "fuseimg";
static enum log_target log_target = LOG_TO_STDERR;

void log_init(const char *program, enum log_target target)
{
	log_program = program;
	log_target = target;
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

void log_msg(int priority, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (log_target == LOG_TO_KERNEL && log_kernel(priority, text))
		return;
	if (log_target == LOG_TO_SYSLOG)
		syslog(priority, "%s", text);
	else
		fprintf(stderr, "%s: %s\n", log_program, text);
}
