/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/core.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/checked.h"
#include "base/log.h"
#include "service/journal.h"

static const struct {
	const char *id;
	int priority;
} journal_events[] = {
	[JOURNAL_WORKER_DIED] = {"1ca8b3ccced14a05b80dbc792efc401a", LOG_WARNING},
	[JOURNAL_WORKER_HANGS] = {"9093f39410d540a4ba5e81cfa1585f2d", LOG_ERR},
	[JOURNAL_POISON] = {"2575a0f28e644289a7def12619d8299a", LOG_ERR},
	[JOURNAL_IO_ERROR] = {"cb86b6c5057946fd945eb246871cec7c", LOG_ERR},
	[JOURNAL_CORRUPT] = {"e36648c20d8f46ae85fab484531f120c", LOG_CRIT},
	[JOURNAL_DISK_HANGS] = {"c3bb38866d504346bec7b3e26533a982", LOG_ERR},
	[JOURNAL_DEVICE_GONE] = {"e970d701e4754f47bc891e8ac9f05ae6", LOG_CRIT},
	[JOURNAL_RESUMED] = {"5a225370e0eb43098548363d285490d9", LOG_WARNING},
	[JOURNAL_GAVE_UP] = {"2cfb5a0b14a0403dbdfa5a0d65566564", LOG_CRIT},
};

_Static_assert(ARRAY_SIZE(journal_events) == JOURNAL_EVENTS, "each event has its row");

const char *journal_id(enum journal_event event)
{
	return journal_events[event].id;
}

void journal_event(const struct supervisor *s, enum journal_event event,
		   const struct journal_detail *detail, const char *fmt, ...)
{
	char text[DIAG_MAX], error[16] = "", offset[24] = "";
	const struct journald_field fields[] = {
		{"MESSAGE_ID", journal_events[event].id},
		{"FUSEIMG_INSTANCE", s->options->name},
		{"FUSEIMG_IMAGE", s->image},
		{"FUSEIMG_TARGET", s->target.path},
		{"FUSEIMG_FORMAT", *s->opened.format ? s->opened.format : NULL},
		{"FUSEIMG_OFFSET", detail && detail->has_offset ? offset : NULL},
		{"ERRNO", detail && detail->error ? error : NULL},
	};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (detail) {
		snprintf(error, sizeof(error), "%d", -detail->error);
		snprintf(offset, sizeof(offset), "%llu", (unsigned long long)detail->offset);
	}
	log_event(journal_events[event].priority, fields, ARRAY_SIZE(fields), "%s: %s",
		  s->image ?: s->config->image, text);
}
