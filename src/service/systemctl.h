/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_SYSTEMCTL_H
#define FUSEIMG_SYSTEMCTL_H

/*
 * What systemctl prints. For root it speaks to PID 1 itself, which still answers when the bus is
 * gone. It may take as long as that takes: not for who is waited for by PID 1.
 */

#include <stddef.h>

/* The first line; "" where it cannot be asked. words: its arguments, NULL at the end. */
void systemctl_ask(const char *const words[], char *answer, size_t size);

/* A property of a unit. */
void systemctl_show(const char *unit, const char *property, char *answer, size_t size);

#endif
