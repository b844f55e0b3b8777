/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_LOG_H
#define FUSEIMG_LOG_H

/*
 * One line to where the process' messages go: standard error while a person looks at it, syslog
 * once the process is a daemon, the kernel's log where there is no other yet. Only service/ and
 * cli/ log; every other layer returns a struct diag.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/journald.h"

enum log_target {
	LOG_TO_STDERR, /* "fuseimg: text"; with the priority where it leads to the journal */
	LOG_TO_SYSLOG,
	LOG_TO_KERNEL, /* /dev/kmsg, for programs that run before any service */
};

void log_init(const char *program, enum log_target target);
/* priority: syslog's LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG. */
void log_msg(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, with more to know about it where messages go to the journal. */
void log_event(int priority, const struct journald_field *fields, size_t n, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif
