/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One program by several names: mount.fuseimg, mount.fuse.fuseimg, umount.fuseimg. */

#include <stdio.h>
#include <string.h>

#include "mount-helper/helper.h"

int main(int argc, char **argv)
{
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "mount.fuseimg";
	struct diag diag = {0};
	int status;

	if (strncmp(name, "umount", strlen("umount")) == 0)
		status = helper_umount(argc, argv, &diag);
	else
		status = helper_mount(argc, argv, &diag);
	if (diag.text[0])
		fprintf(stderr, "%s: %s\n", name, diag.text);
	return status;
}
