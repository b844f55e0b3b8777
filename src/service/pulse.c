/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/pulse.h"

#include <string.h>

enum {
	PULSE_DEFAULT_US = 60 * 1000 * 1000,
};

void pulse_set_limits(struct pulse_limits *l, uint64_t watchdog_us)
{
	uint64_t us = watchdog_us ? watchdog_us : PULSE_DEFAULT_US;

	*l = (struct pulse_limits){.disk_us = us / 2, .stuck_us = us, .silent_us = us / 2};
}

void pulse_reset(struct pulse *p)
{
	*p = (struct pulse){};
}

/* Enters what slot i shows; how long it has been so. An idle slot is never old. */
static uint64_t pulse_age(struct pulse *p, const struct slots *slots, unsigned i, uint64_t now_us)
{
	uint64_t unique = slots_unique(slots, i);
	uint32_t io = atomic_load_explicit(&slots_at(slots, i)->io, memory_order_relaxed);

	if (unique == 0 || p->slots[i].unique != unique)
		p->slots[i].held_us = now_us;
	if (p->slots[i].held_us == now_us || p->slots[i].io != io)
		p->slots[i].since_us = now_us;
	p->slots[i].unique = unique;
	p->slots[i].io = io;
	return now_us - p->slots[i].since_us;
}

/* Is a request at work that takes long by itself, like the discard of a large disk? It may have
 * what the others wait for, and ends some time. */
static bool pulse_is_long_at_work(const struct pulse *p, unsigned n,
				  const struct pulse_limits *limits, uint64_t now_us)
{
	for (unsigned i = 0; i < n; i++)
		if (now_us - p->slots[i].held_us >= limits->stuck_us / 2 &&
		    now_us - p->slots[i].since_us < limits->stuck_us / 2)
			return true;
	return false;
}

/* The main thread does not answer: is the disk to blame, or somebody who keeps it waiting? */
static void pulse_judge_silence(struct pulse *p, const struct slots *slots,
				const struct pulse_limits *limits, uint64_t now_us)
{
	bool in_disk = p->main_io % 2;

	if (p->verdict == PULSE_DISK || pulse_is_long_at_work(p, slots->n, limits, now_us))
		return;
	for (unsigned i = 0; i < slots->n;
	     i++) /* it may be in the disk's hands for too long, soon */
		if (p->slots[i].unique && p->slots[i].io % 2 && p->slots[i].since_us < now_us)
			return;
	if (in_disk && now_us - p->main_since_us < limits->disk_us)
		return;
	p->verdict = in_disk ? PULSE_DISK : PULSE_SILENT;
	p->since_us = p->asked_us;
	p->slot = slots->n;
}

/*
 * A disk that hangs explains every other request that waits: they may want a lock that the thread
 * in the disk's hands has. So PULSE_STUCK only if there is none.
 */
static void pulse_judge_requests(struct pulse *p, const struct slots *slots,
				 const struct pulse_limits *limits, uint64_t now_us)
{
	uint64_t longest[2] = {0}; /* [io % 2] */
	unsigned where[2] = {0};

	for (unsigned i = 0; i < slots->n; i++) {
		uint64_t age = pulse_age(p, slots, i, now_us);
		unsigned odd = p->slots[i].io % 2;

		if (age > longest[odd]) {
			longest[odd] = age;
			where[odd] = i;
		}
	}
	p->verdict = PULSE_FINE;
	if (longest[1] >= limits->disk_us)
		p->verdict = PULSE_DISK;
	else if (longest[0] >= limits->stuck_us &&
		 !pulse_is_long_at_work(p, slots->n, limits, now_us))
		p->verdict = PULSE_STUCK;
	p->slot = where[p->verdict == PULSE_DISK];
	p->since_us = now_us - longest[p->verdict == PULSE_DISK];
}

enum pulse_verdict pulse_look(struct pulse *p, const struct slots *slots,
			      const struct pulse_limits *limits, uint64_t now_us)
{
	uint32_t io = atomic_load_explicit(&slots->head->io, memory_order_relaxed);

	if (p->main_since_us == 0 || io != p->main_io)
		p->main_since_us = now_us;
	p->main_io = io;
	pulse_judge_requests(p, slots, limits, now_us);
	if (pulse_is_overdue(p, limits, now_us))
		pulse_judge_silence(p, slots, limits, now_us);
	return p->verdict;
}

bool pulse_is_overdue(const struct pulse *p, const struct pulse_limits *limits, uint64_t now_us)
{
	return p->asked_us && now_us - p->asked_us >= limits->silent_us;
}
