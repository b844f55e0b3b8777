/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_CLI_PARTITIONS_H
#define FUSEIMG_CLI_PARTITIONS_H

/* The partition table of a disk, as `info` shows it. A table that cannot be read is told of in its
 * place: it says nothing about the image. */

#include <json-c/json.h>

#include "image/image.h"

/* A line for the table and one for each partition; nothing where there is no table. */
void partitions_text(struct image *img);
/* An object, or null where there is no table. */
struct json_object *partitions_json(struct image *img);

#endif
