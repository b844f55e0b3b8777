/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/journald.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
	JOURNALD_MAX = 16 << 10,
};

bool journald_has_stderr(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

size_t journald_format(const struct journald_field *fields, size_t n, char *buf, size_t size)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		int more;

		if (!fields[i].value)
			continue;
		more = snprintf(buf + len, size - len, "%s=%s", fields[i].name, fields[i].value);
		if (more < 0 || (size_t)more + 1 >= size - len)
			return 0;
		for (char *p = buf + len; *p; p++)
			if (*p == '\n')
				*p = ' ';
		len += (size_t)more;
		buf[len++] = '\n';
	}
	return len;
}

int journald_send(const struct journald_field *fields, size_t n)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("FUSEIMG_JOURNAL_SOCKET") ?: "/run/systemd/journal/socket";
	char buf[JOURNALD_MAX];
	size_t len = journald_format(fields, n, buf, sizeof(buf));

	if (fd < 0)
		return -errno;
	if (len == 0 || strlen(path) >= sizeof(address.sun_path))
		return -EMSGSIZE;
	strcpy(address.sun_path, path);
	if (sendto(fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address,
		   sizeof(address)) < 0)
		return -errno;
	return 0;
}
