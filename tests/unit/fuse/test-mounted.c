/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Requests as the real kernel sends them: a mount of our own, served by a child process, used by
 * this one. Needs root and /dev/fuse.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "rig.h"

enum {
	EXIT_SKIPPED = 77,
	MOUNTED_SIZE = (8 << 20) + 512,
	MOUNTED_THREADS = 3,
};

struct mounted {
	char target[64], disk[80];
	struct session session;
	struct worker_config config;
	pid_t server;
};

/* The child: opens the image, serves until the connection ends. Its exit status is the outcome. */
static int serve_image(struct mounted *m, int image_fd, int ready_fd)
{
	const struct image_options image_options = {.format = "raw", .discard = true};
	struct store *store;
	struct image *image;
	struct serve *serve;
	struct pollfd p = {.events = POLLIN};
	int r;

	r = store_file_new(image_fd, "image", &store, NULL);
	if (r == 0)
		r = image_open(store, &image_options, &image, NULL);
	if (r == 0)
		r = serve_start(&(struct serve_options){.image = image,
							.config = &m->config,
							.granted = &m->session.granted,
							.slots_fd = m->session.slots_fd,
							.thread_fds = m->session.thread_fds,
							.n = m->session.n},
				&serve, NULL);
	if (r < 0)
		return 1;
	close(ready_fd);
	p.fd = serve_ended_fd(serve);
	while (poll(&p, 1, -1) < 0)
		;
	if (serve_stop(serve) < 0)
		return 2;
	return image_close(image) < 0 ? 3 : 0;
}

static int image_fd = -1; /* the image's file: outlives each server, as it would on a disk */

static void start_server(struct mounted *m)
{
	int ready[2];
	char c;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	m->server = fork();
	if (m->server == 0) {
		close(ready[0]);
		_exit(serve_image(m, dup(image_fd), ready[1]));
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 0);
	close(ready[0]);
}

static int set_up_as(void **state, bool directory, bool page_cache, bool growable)
{
	static struct mounted m;
	struct session_mount_options o = {.source = "image", .target = m.target};
	struct diag diag = {};

	m = (struct mounted){.config = {.directory = directory,
					.page_cache = page_cache,
					.discard = true,
					.growable = growable,
					.mode = 0600}};
	strcpy(m.target, "/tmp/fuseimg-test-XXXXXX");
	if (directory)
		assert_non_null(mkdtemp(m.target));
	else
		close(mkostemp(m.target, O_CLOEXEC));
	snprintf(m.disk, sizeof(m.disk), directory ? "%s/disk" : "%s", m.target);
	image_fd = memfd_create("image", MFD_CLOEXEC);
	assert_int_equal(ftruncate(image_fd, MOUNTED_SIZE), 0);
	if (session_open(&o, MOUNTED_THREADS, &m.session, &diag) < 0)
		fail_msg("%s", diag.text);
	start_server(&m);
	*state = &m;
	return 0;
}

static int set_up(void **state)
{
	return set_up_as(state, true, true, true);
}

static int set_up_file(void **state)
{
	return set_up_as(state, false, true, true);
}

static int set_up_fixed(void **state)
{
	return set_up_as(state, true, true, false);
}

static int set_up_uncached(void **state)
{
	return set_up_as(state, true, false, true);
}

static int tear_down(void **state)
{
	struct mounted *m = *state;
	int status = -1;

	assert_int_equal(session_unmount(m->target), 0);
	/* An unmount from outside is the orderly end */
	assert_int_equal(waitpid(m->server, &status, 0), m->server);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	session_close(&m->session);
	close(image_fd);
	return m->config.directory ? rmdir(m->target) : unlink(m->target);
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(i * 31 + i / 251 + seed);
}

static uint8_t *pages(size_t len)
{
	void *p = NULL;

	assert_int_equal(posix_memalign(&p, 4096, len), 0);
	return p;
}

/* Writes 2 MiB + 512 at an odd place through one fd and reads it through another, and the image. */
static void write_and_read(struct mounted *m, int write_flags, int read_flags)
{
	enum { LEN = (2 << 20) + 512, OFF = 512 * 7 };
	_cleanup_close_ int w = open(m->disk, O_RDWR | O_CLOEXEC | write_flags);
	_cleanup_close_ int r = open(m->disk, O_RDONLY | O_CLOEXEC | read_flags);
	_cleanup_free_ uint8_t *out = pages(LEN), *in = pages(LEN);

	assert_true(w >= 0 && r >= 0);
	/* what is cached from here must not be seen below */
	assert_int_equal(pread(r, in, LEN, OFF), LEN);
	fill(out, LEN, (unsigned)(write_flags * 3 + read_flags));
	assert_int_equal(pwrite(w, out, LEN, OFF), LEN);
	assert_int_equal(pread(r, in, LEN, OFF), LEN);
	assert_memory_equal(in, out, LEN);
	assert_int_equal(fsync(w), 0);
	memset(in, 0, LEN);
	assert_int_equal(pread(image_fd, in, LEN, OFF), LEN);
	assert_memory_equal(in, out, LEN);
}

static void test_read_and_write(void **state)
{
	write_and_read(*state, 0, 0);
	write_and_read(*state, O_DIRECT, O_DIRECT);
	write_and_read(*state, O_DIRECT, 0);
	write_and_read(*state, 0, O_DIRECT);
}

/* A shared mapping, with and without the page cache, sees and is seen by read and write. */
static void test_mmap(void **state)
{
	struct mounted *m = *state;
	_cleanup_close_ int fd = open(m->disk, O_RDWR | O_CLOEXEC);
	char buf[8] = {};
	char *p;

	if (!m->config.page_cache && !(m->session.granted.flags & FUSE_DIRECT_IO_ALLOW_MMAP))
		skip();
	assert_int_equal(pwrite(fd, "before", 6, 100), 6);
	p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	assert_memory_equal(p + 100, "before", 6);
	memcpy(p + 100, "mapped", 6);
	assert_int_equal(msync(p, 4096, MS_SYNC), 0);
	assert_int_equal(pread(image_fd, buf, 6, 100), 6);
	assert_string_equal(buf, "mapped");
	/* not synced, but read by another way */
	memcpy(p + 8192, "dirty", 5);
	assert_int_equal(pread(fd, buf, 6, 8192), 6);
	assert_string_equal(buf, "dirty");
	assert_int_equal(munmap(p, 1 << 20), 0);
}

static void test_attributes(void **state)
{
	struct mounted *m = *state;
	const struct timespec times[2] = {{.tv_sec = 1000, .tv_nsec = 1}, {.tv_sec = 2000}};
	struct stat st;
	struct statvfs vfs;

	assert_int_equal(stat(m->disk, &st), 0);
	assert_int_equal(st.st_size, MOUNTED_SIZE);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_int_equal(st.st_blksize, 4096);
	assert_int_equal(st.st_blocks, 0);
	assert_int_equal(chmod(m->disk, 0640), 0);
	assert_int_equal(chown(m->disk, 3, 4), 0);
	assert_int_equal(utimensat(AT_FDCWD, m->disk, times, 0), 0);
	assert_int_equal(stat(m->disk, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(st.st_uid, 3);
	assert_int_equal(st.st_gid, 4);
	assert_int_equal(st.st_atim.tv_sec, 1000);
	assert_int_equal(st.st_atim.tv_nsec, 1);
	assert_int_equal(st.st_mtim.tv_sec, 2000);
	assert_int_equal(statvfs(m->disk, &vfs), 0);
	assert_int_equal(vfs.f_blocks, MOUNTED_SIZE / 4096 + 1);
}

static void test_size_and_holes(void **state)
{
	struct mounted *m = *state;
	_cleanup_close_ int fd = open(m->disk, O_RDWR | O_CLOEXEC | O_TRUNC);
	struct stat st;
	char c = 'x';

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, MOUNTED_SIZE);
	assert_int_equal(pwrite(fd, "data", 4, 1 << 20), 4);
	assert_int_equal(lseek(fd, 0, SEEK_DATA), 1 << 20);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), 0);
	assert_int_equal(lseek(fd, MOUNTED_SIZE, SEEK_DATA), -1);
	assert_int_equal(errno, ENXIO);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096),
			 0);
	assert_int_equal(pread(fd, &c, 1, 1 << 20), 1);
	assert_int_equal(c, 0);
	assert_int_equal(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	/* growable */
	assert_int_equal(ftruncate(fd, MOUNTED_SIZE + 1000), 0);
	assert_int_equal(pwrite(fd, "end", 3, MOUNTED_SIZE + 2000), 3);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, MOUNTED_SIZE + 2003);
	assert_int_equal(pread(fd, &c, 1, MOUNTED_SIZE + 3000), 0);
}

/* Buffered or direct: the last bytes are written, those behind them are ENOSPC, nothing grows. */
static void test_fixed_size(void **state)
{
	const int flags[] = {0, O_DIRECT};
	struct mounted *m = *state;
	_cleanup_free_ uint8_t *buf = pages(8192);
	struct stat st;

	fill(buf, 8192, 1);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		_cleanup_close_ int fd = open(m->disk, O_RDWR | O_CLOEXEC | flags[i]);

		assert_int_equal(pwrite(fd, buf, 8192, MOUNTED_SIZE - 512), 512);
		assert_int_equal(pwrite(fd, buf, 8192, MOUNTED_SIZE), -1);
		assert_int_equal(errno, ENOSPC);
		assert_int_equal(pread(fd, buf + 4096, 4096, MOUNTED_SIZE - 512), 512);
		assert_memory_equal(buf, buf + 4096, 512);
		assert_int_equal(ftruncate(fd, MOUNTED_SIZE + 4096), -1);
		assert_int_equal(errno, EPERM);
		assert_int_equal(ftruncate(fd, 0), -1);
		assert_int_equal(fallocate(fd, 0, MOUNTED_SIZE, 4096), -1);
		assert_int_equal(errno, ENOSPC);
		assert_int_equal(fallocate(fd, FALLOC_FL_ZERO_RANGE, MOUNTED_SIZE, 4096), -1);
		assert_int_equal(errno, ENOSPC);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, MOUNTED_SIZE);
	}
}

static void test_names(void **state)
{
	struct mounted *m = *state;
	const char *const expected[] = {".", "..", "disk", "status"};
	char path[128], text[4096] = {};
	DIR *d = opendir(m->target);
	struct dirent *e;
	size_t i = 0;
	int fd;

	assert_non_null(d);
	while ((e = readdir(d)))
		assert_string_equal(e->d_name, expected[i++]);
	closedir(d);
	assert_int_equal(i, 4);
	snprintf(path, sizeof(path), "%s/status", m->target);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	assert_non_null(strstr(text, "format: raw\n"));
	close(fd);
	snprintf(path, sizeof(path), "%s/new", m->target);
	assert_int_equal(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(mkdir(path, 0700), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(unlink(m->disk), -1);
	assert_int_equal(errno, EPERM);
}

enum { KILL_LEN = 64 * 1024, KILL_BLOCKS = 64, KILL_ROUNDS = 8 };

/* Writes and reads back, block by block, several rounds. */
static int client(const struct mounted *m)
{
	_cleanup_close_ int fd = open(m->disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	_cleanup_free_ uint8_t *buf = pages(KILL_LEN), *seen = pages(KILL_LEN);

	for (unsigned i = 0; i < KILL_ROUNDS * KILL_BLOCKS; i++) {
		off_t off = i % KILL_BLOCKS * KILL_LEN;

		fill(buf, KILL_LEN, i);
		if (pwrite(fd, buf, KILL_LEN, off) != KILL_LEN) {
			fprintf(stderr, "write %u: %m\n", i);
			return 1;
		}
		if (pread(fd, seen, KILL_LEN, off) != KILL_LEN) {
			fprintf(stderr, "read %u: %m\n", i);
			return 1;
		}
		if (memcmp(buf, seen, KILL_LEN) != 0) {
			fprintf(stderr, "block %u has other data\n", i);
			return 1;
		}
	}
	return 0;
}

/*
 * The server is killed with requests in its hands, again and again; no client sees an error. This
 * process itself never opens the disk: its children the servers would inherit the fd, and wait for
 * themselves when the kernel closes it.
 */
static void test_killed_server(void **state)
{
	struct mounted *m = *state;
	_cleanup_free_ uint8_t *buf = pages(KILL_LEN), *seen = pages(KILL_LEN);
	int status = -1;
	pid_t pid;

	pid = fork();
	if (pid == 0)
		_exit(client(m));
	for (int i = 0; i < 10; i++) {
		usleep(5000);
		assert_int_equal(kill(m->server, SIGKILL), 0);
		assert_int_equal(waitpid(m->server, &status, 0), m->server);
		start_server(m);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	for (unsigned i = 0; i < KILL_BLOCKS; i++) {
		fill(buf, KILL_LEN, (KILL_ROUNDS - 1) * KILL_BLOCKS + i);
		assert_int_equal(pread(image_fd, seen, KILL_LEN, i * KILL_LEN), KILL_LEN);
		assert_memory_equal(buf, seen, KILL_LEN);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read_and_write, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_read_and_write, set_up_uncached, tear_down),
		cmocka_unit_test_setup_teardown(test_read_and_write, set_up_file, tear_down),
		cmocka_unit_test_setup_teardown(test_mmap, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_mmap, set_up_uncached, tear_down),
		cmocka_unit_test_setup_teardown(test_attributes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_attributes, set_up_file, tear_down),
		cmocka_unit_test_setup_teardown(test_size_and_holes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_size_and_holes, set_up_uncached, tear_down),
		cmocka_unit_test_setup_teardown(test_fixed_size, set_up_fixed, tear_down),
		cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_killed_server, set_up, tear_down),
	};

	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0) {
		fprintf(stderr, "needs root and /dev/fuse\n");
		return EXIT_SKIPPED;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
