/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

static const char *log_program = "fuseimg";
static enum log_target log_target = LOG_TO_STDERR;

void log_init(const char *program, enum log_target target)
{
	log_program = program;
	log_target = target;
	if (target == LOG_TO_SYSLOG)
		openlog(program, LOG_PID, LOG_DAEMON);
}

void log_msg(int priority, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (log_target == LOG_TO_SYSLOG)
		syslog(priority, "%s", text);
	else
		fprintf(stderr, "%s: %s\n", log_program, text);
}
