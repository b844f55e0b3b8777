/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * fuseimg-udev-probe DEVICE: what udev's rules want to know of a block device, in one line:
 *
 *   a loop device over an export   export NAME [partN]     NAME is encoded as in /dev/disk/by-label
 *   one that holds an image        image FORMAT [SIZE]     bytes of the disk; not where the image
 * names other files
 *
 * Else it prints nothing and fails. Anybody can plug in a disk, so what stands there is read
 * without any rights, and the rules take no more than two words from the line: what reads hostile
 * bytes must not be able to set properties at will, some of which start units.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "format/format.h"
#include "image/image.h"
#include "store/store.h"
#include "udev-probe/loop.h"
#include "worker/sandbox.h"

/* "image qcow2 1073741824" */
static int probe_image(struct store *store, struct diag *diag)
{
	const struct image_options options = {.read_only = true};
	const struct format *format = NULL;
	struct image *img;
	int r = format_probe(store, &format);

	if (r == 0 && !format)
		r = -EMEDIUMTYPE;
	if (r < 0) {
		store_close(store);
		return r;
	}
	printf("image %s", format->name);
	if (image_open(store, &options, &img, diag) == 0) {
		printf(" %llu", (unsigned long long)image_size(img));
		(void)image_close(img);
	}
	putchar('\n');
	return 0;
}

static int probe_device(int fd, const char *name, struct diag *diag)
{
	struct store *store;
	/* Asks the device alone, for its size and sectors */
	int r = store_file_new(fd, name, &store, diag);

	if (r < 0)
		return r;
	r = sandbox_enter_narrow(diag);
	if (r == 0)
		return probe_image(store, diag);
	store_close(store);
	return r;
}

static int probe(const char *name, struct diag *diag)
{
	char text[LOOP_TEXT_MAX];
	struct stat st;
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0 || fstat(fd, &st) < 0)
		return diag_errno(diag, -errno, "%s", name);
	if (S_ISBLK(st.st_mode) && loop_describe(st.st_rdev, text)) {
		puts(text);
		return 0;
	}
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return diag_set(diag, -ENOTBLK, "%s is no block device", name);
	/* The rest of what udev has open is none of our business */
	if (dup2(fd, STDERR_FILENO + 1) < 0 || close_range(STDERR_FILENO + 2, ~0U, 0) < 0)
		return diag_errno(diag, -errno, "%s", name);
	return probe_device(STDERR_FILENO + 1, name, diag);
}

int main(int argc, char **argv)
{
	struct diag diag = {0};

	if (argc != 2) {
		fputs("Usage: fuseimg-udev-probe DEVICE\n", stderr);
		return 2;
	}
	if (probe(argv[1], &diag) == 0 && fflush(stdout) == 0)
		return EXIT_SUCCESS;
	if (diag.text[0])
		fprintf(stderr, "fuseimg-udev-probe: %s\n", diag.text);
	return EXIT_FAILURE;
}
