/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session/mount.h"

#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"

/* Turns the \ooo of /proc/self/mountinfo back into bytes, in place. */
static void readahead_unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
}

/*
 * major:minor of the topmost mount on target (the last one listed). Not by stat(2): that would ask
 * the file system itself, which nobody serves yet.
 */
static bool readahead_find_device(const char *target, unsigned *ret_major, unsigned *ret_minor)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	bool found = false;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		_cleanup_free_ char *point = NULL;
		unsigned major, minor;

		if (sscanf(line, "%*d %*d %u:%u %*s %ms", &major, &minor, &point) != 3)
			continue;
		readahead_unescape(point);
		if (strcmp(point, target) != 0)
			continue;
		*ret_major = major;
		*ret_minor = minor;
		found = true;
	}
	return found;
}

void mount_raise_readahead(const char *target, uint32_t bytes)
{
	_cleanup_close_ int fd = -1;
	unsigned major, minor;
	char text[64];
	int n;

	if (!readahead_find_device(target, &major, &minor))
		return;
	snprintf(text, sizeof(text), "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
	fd = open(text, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = snprintf(text, sizeof(text), "%u\n", bytes / 1024);
	(void)io_write(fd, text, (size_t)n);
}
