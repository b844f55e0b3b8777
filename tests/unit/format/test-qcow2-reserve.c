/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is reserved ahead of its use: given back when nobody writes, and taken over when the process
 * is killed; in no moment something that a table names. */

#include "power.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "store/journal.h"

enum { DISK = 64 << 20, BLOCK = 65536 };

static int idle(struct disk *d)
{
	int r;

	rwlock_read(&d->io_lock);
	r = d->img.format->idle(&d->img);
	rwlock_unread(&d->io_lock);
	if (atomic_load(&d->img.settle_wanted)) {
		rwlock_write(&d->io_lock);
		d->img.format->settle(&d->img);
		rwlock_unwrite(&d->io_lock);
	}
	return r;
}

static void write_block(struct disk *d, uint64_t off, uint64_t seed)
{
	static _Thread_local char buf[BLOCK];

	pattern(buf, BLOCK, off, seed);
	assert_int_equal(disk_write(d, buf, BLOCK, off), 0);
}

static void assert_block(struct disk *d, uint64_t off, uint64_t seed)
{
	static char want[BLOCK], have[BLOCK];

	pattern(want, BLOCK, off, seed);
	assert_int_equal(disk_read(d, have, BLOCK, off), 0);
	assert_memory_equal(want, have, BLOCK);
}

static uint64_t file_size(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

/* Clusters that nothing names, by our own check. */
static uint64_t count_leaks(const char *path)
{
	struct check check = {.repair = CHECK_ONLY};
	struct diag diag = {0};
	struct disk d;

	disk_open(&d, path, false);
	assert_int_equal(d.img.format->check(&d.img, &check, &diag), 0);
	assert_int_equal(check.corruptions, 0);
	disk_close(&d);
	return check.leaks;
}

/* In an image that is open, clusters are reserved only while somebody writes. */
static void test_idle(void **state)
{
	static const char *const some[] = {"compat=0.10", "cluster_size=512", "cluster_size=4k",
					   "cluster_size=64k", "extended_l2=on"};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		uint64_t long_size, off = 0;

		print_message("%s\n", some[i]);

		sh("rm -f img; qemu-img create -q -f qcow2 -o %s img %d", some[i], DISK);
		disk_open(&d, "img", true);
		for (int round = 0; round < 8; round++) {
			for (int n = 0; n < 1 + round * 3; n++, off += BLOCK)
				write_block(&d, off, 1);
			assert_int_equal(idle(&d), 0); /* somebody was here */
			long_size = file_size("img");
			sh("cp img meanwhile");
			assert_true(count_leaks("meanwhile") > 0);
			assert_int_equal(idle(&d), 0);
			/* Small clusters: refcount blocks may stand behind it */
			assert_true(file_size("img") <= long_size);
			if (strstr(some[i], "64k"))
				assert_true(file_size("img") < off + MIB(1));
			sh("cp img meanwhile");
			assert_check("meanwhile", false);
			assert_int_equal(idle(&d), 0);
			/* What was replaced is free by then, too */
			assert_int_equal(disk_unmap(&d, off - BLOCK, BLOCK, UNMAP_DISCARD), 0);
			assert_int_equal(idle(&d), 0);
			assert_int_equal(idle(&d), 0);
			sh("cp img meanwhile");
			assert_check("meanwhile", false);
			write_block(&d, off - BLOCK, 1);
		}
		for (uint64_t at = 0; at < off; at += BLOCK)
			assert_block(&d, at, 1);
		disk_close(&d);
		assert_check("img", false);
	}
}

struct writer {
	struct disk *d;
	uint64_t from, to;
	atomic_bool *done;
};

static void *writer_run(void *data)
{
	const struct writer *w = data;
	const struct timespec pause = {.tv_nsec = 200000};

	for (uint64_t off = w->from; off < w->to; off += BLOCK) {
		write_block(w->d, off, 3);
		if (off / BLOCK % 4 == 0)
			nanosleep(&pause, NULL);
		if (off / BLOCK % 64 == 0)
			assert_int_equal(disk_unmap(w->d, off, BLOCK, UNMAP_DISCARD), 0);
		if (off / BLOCK % 64 == 0)
			write_block(w->d, off, 3);
	}
	return NULL;
}

/* All of it is given back between any two writes. */
static void test_idle_among_writers(void **state)
{
	static const char *const some[] = {"cluster_size=512", "cluster_size=64k"};
	struct disk d;

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		struct writer w[3];
		pthread_t threads[3];

		sh("rm -f img; qemu-img create -q -f qcow2 -o %s img %d", some[i], DISK);
		disk_open(&d, "img", true);
		for (uint64_t t = 0; t < 3; t++) {
			w[t] = (struct writer){
				.d = &d, .from = t * DISK / 4, .to = (t + 1) * DISK / 4};
			assert_int_equal(pthread_create(&threads[t], NULL, writer_run, &w[t]), 0);
		}
		for (int n = 0; n < 400; n++)
			assert_int_equal(idle(&d), 0);
		for (size_t t = 0; t < 3; t++)
			pthread_join(threads[t], NULL);
		for (uint64_t at = 0; at < DISK / 4 * 3; at += BLOCK)
			assert_block(&d, at, 3);
		assert_null(d.img.damage);
		disk_close(&d);
		assert_check("img", false);
	}
}

/* The power goes while reservations come and go. */
static void test_idle_power_cuts(void **state)
{
	enum { ROUNDS = 5, EACH = 2 };
	_cleanup_journal_ struct journal *j = journal_new();
	size_t flushed[ROUNDS];
	struct disk d;

	if (!harness_have_qemu())
		skip();
	sh("qemu-img create -q -f qcow2 -o cluster_size=16k img %d", DISK);
	power_open(&d, j);
	for (uint64_t round = 0; round < ROUNDS; round++) {
		for (uint64_t n = 0; n < EACH; n++)
			write_block(&d, (round * EACH + n) * BLOCK, 2);
		assert_int_equal(disk_flush(&d), 0);
		flushed[round] = journal_length(j);
		assert_int_equal(idle(&d), 0);
		assert_int_equal(idle(&d), 0);
	}
	disk_close(&d);
	for (size_t k = 0; k <= journal_length(j); k++) {
		power_open_cut(&d, j, k, 16);
		for (uint64_t n = 0; n < ROUNDS * EACH; n++)
			if (flushed[n / EACH] <= k)
				assert_block(&d, n * BLOCK, 2);
		disk_close(&d);
	}
}

/* A killed process leaves its note, and the next one goes on with it. */
static void test_taken_over(void **state)
{
	static const char *const some[] = {"compat=0.10", "cluster_size=512", "cluster_size=64k",
					   "refcount_bits=1", "extended_l2=on"};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		struct format_spare spare = {0};
		struct disk d;

		sh("rm -f img; qemu-img create -q -f qcow2 -o %s img %d", some[i], DISK);
		for (uint64_t round = 0; round < 6; round++) {
			disk_open(&d, "img", true);
			d.img.format->keep(&d.img, &spare);
			for (uint64_t n = 0; n < 10; n++)
				write_block(&d, (round * 10 + n) * BLOCK, 4);
			disk_kill(&d);
			assert_true(spare.valid && spare.n > 0);
			sh("cp img meanwhile");
			assert_check("meanwhile", true);
		}
		assert_true(file_size("img") < 6 * MIB(8));
		disk_open(&d, "img", true);
		d.img.format->keep(&d.img, &spare);
		for (uint64_t at = 0; at < UINT64_C(60) * BLOCK; at += BLOCK)
			assert_block(&d, at, 4);
		disk_close(&d);
		assert_true(spare.valid && spare.n == 0);
		assert_check("img", false);
	}
}

static void spoil_file(struct format_spare *spare)
{
	spare->ino++;
}

static void spoil_sum(struct format_spare *spare)
{
	spare->runs[0].n++;
}

static void spoil_count(struct format_spare *spare)
{
	spare->n = UINT32_MAX;
}

static void spoil_valid(struct format_spare *spare)
{
	spare->valid = 0;
}

static void spoil_nothing(struct format_spare *spare)
{
}

/* A note that is not of this image, or is not whole, is not believed: all of it is leaked. */
static void test_not_believed(void **state)
{
	static void (*const spoils[])(struct format_spare *) = {spoil_file, spoil_sum, spoil_count,
								spoil_valid, spoil_nothing};

	if (!harness_have_qemu())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(spoils); i++) {
		struct format_spare spare = {0};
		struct disk d;

		sh("rm -f img; qemu-img create -q -f qcow2 img %d", DISK);
		disk_open(&d, "img", true);
		d.img.format->keep(&d.img, &spare);
		write_block(&d, 0, 5);
		disk_kill(&d);
		/* Somebody has been at it meanwhile, and uses the space */
		if (spoils[i] == spoil_nothing)
			sh("qemu-img check -q -r leaks img >/dev/null 2>&1; "
			   "qemu-io -c 'write -P 6 32M 4M' img >/dev/null");
		spoils[i](&spare);
		disk_open(&d, "img", true);
		d.img.format->keep(&d.img, &spare);
		assert_int_equal(spare.n, 0);
		for (uint64_t n = 0; n < 100; n++)
			write_block(&d, n * BLOCK, 5);
		disk_close(&d);
		assert_int_equal(count_leaks("img") > 0, spoils[i] != spoil_nothing);
		if (spoils[i] == spoil_nothing)
			sh("qemu-io -c 'read -P 6 32M 4M' img | grep -vq failed");
		assert_check("img", true);
	}
}

/* Writes until it is killed; each block's seed says which process wrote it. */
static void write_until_killed(struct format_spare *spare, uint64_t seed)
{
	struct disk d;

	disk_open(&d, "img", true);
	d.img.format->keep(&d.img, spare);
	for (uint64_t n = seed;; n++) {
		uint64_t off = n * 7 % (DISK / BLOCK) * BLOCK;

		if (n % 5 == 0)
			disk_unmap(&d, off, BLOCK, UNMAP_DISCARD);
		else
			write_block(&d, off, 8);
		if (n % 64 == 0)
			disk_flush(&d);
	}
}

/* SIGKILL at any moment: nothing is named twice, and little is leaked. */
static void test_killed(void **state)
{
	struct format_spare *spare = mmap(NULL, sizeof(*spare), PROT_READ | PROT_WRITE,
					  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t rng = 11;

	assert_true(spare != MAP_FAILED);
	if (!harness_have_qemu())
		skip();
	sh("rm -f img; qemu-img create -q -f qcow2 -o cluster_size=4k img %d", DISK);
	for (unsigned i = 0; i < 40; i++) {
		const struct timespec life = {.tv_nsec =
						      (long)(2 + random_next(&rng) % 30) * 1000000};
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			write_until_killed(spare, i * 97);
			_exit(0);
		}
		nanosleep(&life, NULL);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		if (i % 8 == 7) {
			struct disk d;

			sh("cp img meanwhile");
			assert_check("meanwhile", true);
			disk_open(&d, "meanwhile", true);
			disk_close(&d);
		}
	}
	munmap(spare, sizeof(*spare));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_idle_among_writers),
		cmocka_unit_test(test_idle_power_cuts),
		cmocka_unit_test(test_taken_over),
		cmocka_unit_test(test_not_believed),
		cmocka_unit_test(test_killed),
	};

	return cmocka_run_group_tests(tests, harness_setup, harness_teardown);
}
