/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_FORMAT_DRIVERS_H
#define FUSEIMG_FORMAT_DRIVERS_H

/* The drivers that formats.c lists; private to this folder: others go through the table. */

#include "format/format.h"

extern const struct format format_qcow2;
extern const struct format format_raw;

#endif
