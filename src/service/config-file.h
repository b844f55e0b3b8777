/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CONFIG_FILE_H
#define FUSEIMG_CONFIG_FILE_H

/*
 * The file of an export, /etc/fuseimg/NAME.conf: syntax of EnvironmentFile= (base/env-file.h), keys
 * of config.h in capitals. Of a key that stands there several times the last counts, and nothing
 * behind the "=" means the default, as in systemd. Sentences begin "FILE:LINE: ".
 *
 * Needs no supervisor: the generator, too, reads its files here.
 */

#include "base/diag.h"
#include "base/env-file.h"
#include "service/config.h"

/* Reads and checks; *ret is the caller's to free. -EINVAL: what stands there is wrong; else the
 * errno of opening and reading. */
int config_file_read(const char *path, struct config *ret, struct diag *diag);

/* The same for a program that runs before services do: whom the disk belongs to is passed over,
 * since to look up a name may need a service. */
int config_file_read_early(const char *path, struct config *ret, struct diag *diag);

/* Calls f for each setting that counts, in the order of the file. Only the syntax was checked. */
int config_file_visit(const char *path, env_file_fn f, void *data, struct diag *diag);

#endif
