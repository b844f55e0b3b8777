/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/checked.h"

int host_file(const char *dir, int flags, uint64_t size)
{
	char path[128], link[64];
	int fd, opened;

	snprintf(path, sizeof(path), "%s/fuseimg-test-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	assert_return_code(fd, errno);
	assert_return_code(ftruncate(fd, (off_t)size), errno);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	opened = open(link, flags | O_CLOEXEC);
	assert_return_code(opened, errno);
	assert_return_code(unlink(path), errno);
	close(fd);
	return opened;
}

struct store *host_store(const char *dir, int flags, uint64_t size)
{
	struct store *s = NULL;

	assert_int_equal(store_file_new(host_file(dir, flags, size), "test.img", &s, NULL), 0);
	return s;
}

/* One try to get a free loop device; -EBUSY: another program was faster. */
static int host_loop_once(int control, int backing, int flags, unsigned sector)
{
	struct loop_config config = {
		.fd = (uint32_t)backing,
		.block_size = sector,
		.info = {.lo_flags = LO_FLAGS_AUTOCLEAR},
	};
	int n = ioctl(control, LOOP_CTL_GET_FREE);
	_cleanup_close_ int setup = -1;
	char path[32];

	if (n < 0)
		return -errno;
	snprintf(path, sizeof(path), "/dev/loop%d", n);
	setup = open(path, O_RDWR | O_CLOEXEC);
	if (setup < 0 || ioctl(setup, LOOP_CONFIGURE, &config) < 0)
		return -errno;
	n = open(path, flags | O_CLOEXEC);
	return n < 0 ? -errno : n;
}

int host_loop(int flags, uint64_t size, unsigned sector)
{
	_cleanup_close_ int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	_cleanup_close_ int backing = -1;
	int fd = -EBUSY;

	if (control < 0) {
		print_message("no loop devices for us: %s\n", strerror(errno));
		return -1;
	}
	backing = host_file(HOST_DISK, O_RDWR, size);
	for (int i = 0; i < 20 && fd == -EBUSY; i++)
		fd = host_loop_once(control, backing, flags, sector);
	if (fd < 0)
		print_message("cannot set up a loop device: %s\n", strerror(-fd));
	return fd < 0 ? -1 : fd;
}

const char *host_ramfs(void)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0) {
		print_message("no mount namespace for us\n");
		return NULL;
	}
	assert_return_code(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), errno);
	assert_return_code(mount("ramfs", "/mnt", "ramfs", 0, NULL), errno);
	return "/mnt";
}

static unsigned char host_byte(uint64_t at, unsigned seed)
{
	uint64_t v =
		(at / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15) + seed * UINT64_C(0x94d049bb133111eb);

	return (unsigned char)(v >> (at % 8 * 8));
}

void host_pattern(void *buf, size_t len, uint64_t off, unsigned seed)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		p[i] = host_byte(off + i, seed);
}

void host_assert_pattern(const void *buf, size_t len, uint64_t off, unsigned seed)
{
	const unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		if (p[i] != host_byte(off + i, seed))
			fail_msg("byte %llu is 0x%02x, not 0x%02x", (unsigned long long)(off + i),
				 p[i], host_byte(off + i, seed));
}

void host_assert_zero(const void *buf, size_t len)
{
	const unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		if (p[i])
			fail_msg("byte %zu is 0x%02x, not 0", i, p[i]);
}

uint64_t host_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

struct host_thread {
	pthread_t thread;
	int (*work)(struct store *s, unsigned id);
	struct store *s;
	unsigned id;
	int result;
};

static void *host_thread_run(void *arg)
{
	struct host_thread *t = arg;

	t->result = t->work(t->s, t->id);
	return NULL;
}

void host_threads(unsigned n, int (*work)(struct store *s, unsigned id), struct store *s)
{
	_cleanup_free_ struct host_thread *threads = calloc(n, sizeof(*threads));

	for (unsigned i = 0; i < n; i++) {
		threads[i] = (struct host_thread){.work = work, .s = s, .id = i};
		assert_int_equal(
			pthread_create(&threads[i].thread, NULL, host_thread_run, &threads[i]), 0);
	}
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(pthread_join(threads[i].thread, NULL), 0);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(threads[i].result, 0);
}
