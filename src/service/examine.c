/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A look at the worker, and what follows from it: see pulse.h. Whoever is being looked at with a
 * debugger is left alone.
 */

#include "service/core.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "service/journal.h"

enum {
	EXAMINE_STATUS_MAX = 16 << 10,
};

/* The first character of a field of /proc/PID/status, '\0': cannot be told. */
static char examine_field(pid_t pid, const char *name)
{
	_cleanup_free_ char *text = NULL;
	char path[64], key[32];
	const char *line;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (io_read_file(AT_FDCWD, path, EXAMINE_STATUS_MAX, &text, NULL) < 0)
		return '\0';
	snprintf(key, sizeof(key), "\n%s:\t", name);
	line = strstr(text, key);
	return line ? line[strlen(key)] : '\0';
}

static bool examine_is_traced(pid_t pid)
{
	char first = examine_field(pid, "TracerPid");

	return first != '\0' && first != '0';
}

/* By a signal: then what its threads were about when it came says nothing. */
static bool examine_is_stopped(pid_t pid)
{
	return examine_field(pid, "State") == 'T';
}

static void examine_end(struct supervisor *s, uint64_t since, uint64_t now, const char *of)
{
	if (examine_is_traced(s->attend.pid))
		return;
	journal_event(s, JOURNAL_WORKER_HANGS, NULL, "the worker (pid %d) hangs: for %llu s it %s",
		      s->attend.pid, (unsigned long long)(now - since) / 1000000, of);
	attend_accuse(s, of);
}

static void examine_tell_disk(struct supervisor *s, enum pulse_verdict before, uint64_t now)
{
	uint64_t seconds = (now - s->pulse.since_us) / 1000000;

	if (before != PULSE_DISK && s->pulse.verdict == PULSE_DISK) {
		s->disk_hangs_us = s->pulse.since_us;
		journal_event(s, JOURNAL_DISK_HANGS, NULL,
			      "its storage has not answered for %llu s",
			      (unsigned long long)seconds);
	} else if (before == PULSE_DISK && s->pulse.verdict != PULSE_DISK) {
		log_msg(LOG_NOTICE, "%s: its storage answers again, after %llu s", s->image,
			(unsigned long long)(now - s->disk_hangs_us) / 1000000);
		report_problem(s, "the storage of the image had not answered for %llu s",
			       (unsigned long long)(now - s->disk_hangs_us) / 1000000);
	}
}

void examine_worker(struct supervisor *s, uint64_t now)
{
	enum pulse_verdict before = s->pulse.verdict;

	/* One that was killed and is still there is in the hands of a disk that hangs */
	if (s->attend.accused ||
	    (s->attend.phase != ATTEND_STARTING && s->attend.phase != ATTEND_SERVING))
		return;
	/* At its start it executes what its predecessor left, before it has time for questions */
	if (s->attend.phase == ATTEND_SERVING && s->pulse.asked_us == 0) {
		s->pulse.asked_us = now;
		attend_ping(s);
	}
	if (pulse_is_overdue(&s->pulse, &s->pulse_limits, now) &&
	    examine_is_stopped(s->attend.pid)) {
		examine_end(s, s->pulse.asked_us, now, "did not answer");
		return;
	}
	switch (pulse_look(&s->pulse, &s->slots, &s->pulse_limits, now)) {
	case PULSE_STUCK:
		examine_end(s, s->pulse.since_us, now, "did not get on with a request");
		break;
	case PULSE_SILENT:
		examine_end(s, s->pulse.since_us, now, "did not answer");
		break;
	default:
		examine_tell_disk(s, before, now);
	}
}
