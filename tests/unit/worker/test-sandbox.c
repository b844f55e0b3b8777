/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Each check runs in a child that has entered the sandbox: as root (when the test is), and as an
 * ordinary user.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "config.h"
#include "worker/sandbox.h"

enum {
	OUTSIDER = 65533, /* an ordinary user, who is not "nobody" either */
	CHILD_OK = 0,
	CHILD_REFUSED = 40, /* the sandbox could not be entered */
	CHILD_WRONG = 41,
};

static bool as_user; /* which of the two rounds this is */

/* A child inside the sandbox that runs check() with arg. */
static pid_t start_inside(int (*check)(int arg), int arg)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct diag diag = {0};

		alarm(120); /* a test that failed meanwhile does not leave us behind */
		if (as_user && geteuid() == 0 &&
		    (setgroups(0, NULL) < 0 || setresgid(OUTSIDER, OUTSIDER, OUTSIDER) < 0 ||
		     setresuid(OUTSIDER, OUTSIDER, OUTSIDER) < 0))
			_exit(CHILD_REFUSED);
		if (sandbox_enter(NULL, &diag) < 0) {
			dprintf(2, "%s\n", diag.text);
			_exit(CHILD_REFUSED);
		}
		_exit(check(arg));
	}
	return pid;
}

/* The same, waited for: its status. */
static int run_inside(int (*check)(int arg), int arg)
{
	int status = 0;
	pid_t pid = start_inside(check, arg);

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_inside(int (*check)(int arg), int arg)
{
	int status = run_inside(check, arg);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), CHILD_OK);
}

/* The filter ends whoever tries; without it (sanitizer builds) there is nothing to see here. */
static void assert_killed(int (*check)(int arg), int arg)
{
	int status;

	if (!FUSEIMG_SECCOMP)
		return;
	status = run_inside(check, arg);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

/* No path leads anywhere. */
static int check_paths(int arg)
{
	static const char *const paths[] = {
		"/",	 ".",	   "..",	 "/etc/passwd", "/dev/fuse",   "/dev/null",
		"/proc", "/tmp/x", "/proc/self", "/sys/block",	"../../../etc"};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		if (open(paths[i], O_RDONLY) >= 0 || open(paths[i], O_WRONLY | O_CREAT, 0600) >= 0)
			return CHILD_WRONG;
		if (errno != EACCES && errno != ENOENT && errno != EISDIR && errno != EROFS)
			return CHILD_WRONG;
	}
	return CHILD_OK;
}

static void test_opens_nothing(void **state)
{
	assert_inside(check_paths, 0);
}

static int call_socket(int arg)
{
	return socket(arg, SOCK_STREAM, 0);
}

static int call_execve(int arg)
{
	char *argv[] = {NULL};

	return execve("/bin/true", argv, argv);
}

static int call_fork(int arg)
{
	return fork() == 0;
}

static int call_kill(int arg)
{
	return kill(arg, SIGTERM);
}

static int call_tgkill(int arg)
{
	return (int)syscall(SYS_tgkill, arg, arg, SIGTERM);
}

static int call_ptrace(int arg)
{
	return (int)ptrace(PTRACE_ATTACH, arg, NULL, NULL);
}

static int call_mmap_exec(int arg)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == NULL;
}

static int call_mprotect_exec(int arg)
{
	void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static int call_mount(int arg)
{
	return mount("none", "/", "tmpfs", 0, NULL);
}

static int call_unshare(int arg)
{
	return unshare(CLONE_NEWUSER);
}

static int call_stat(int arg)
{
	struct stat st;

	return fstatat(AT_FDCWD, "/etc/passwd", &st, 0);
}

static int call_ioctl(int arg)
{
	return (int)syscall(SYS_ioctl, 0, 0x5401 /* TCGETS */, NULL);
}

static int call_setuid(int arg)
{
	return setuid(0);
}

static void test_forbidden_calls_kill(void **state)
{
	assert_killed(call_socket, AF_UNIX);
	assert_killed(call_socket, AF_INET);
	assert_killed(call_execve, 0);
	assert_killed(call_fork, 0);
	assert_killed(call_kill, getpid());
	assert_killed(call_tgkill, getpid());
	assert_killed(call_ptrace, getpid());
	assert_killed(call_mmap_exec, 0);
	assert_killed(call_mprotect_exec, 0);
	assert_killed(call_mount, 0);
	assert_killed(call_unshare, 0);
	assert_killed(call_stat, 0);
	assert_killed(call_ioctl, 0);
	assert_killed(call_setuid, 0);
}

static int check_file(int fd)
{
	char buf[4096] = "image bytes", back[sizeof(buf)];
	struct stat st;

	if (pwrite(fd, buf, sizeof(buf), 65536) != (ssize_t)sizeof(buf) ||
	    pread(fd, back, sizeof(back), 65536) != (ssize_t)sizeof(back) ||
	    memcmp(buf, back, sizeof(buf)) != 0)
		return CHILD_WRONG;
	if (fallocate(fd, 0, 1 << 20, 4096) < 0 ||
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 4096) < 0)
		return CHILD_WRONG;
	if (fdatasync(fd) < 0 || fsync(fd) < 0 || ftruncate(fd, 2 << 20) < 0)
		return CHILD_WRONG;
	if (fstat(fd, &st) < 0 || st.st_size != 2 << 20 || lseek(fd, 0, SEEK_HOLE) < 0)
		return CHILD_WRONG;
	return fcntl(fd, F_GETFL) < 0 ? CHILD_WRONG : CHILD_OK;
}

static void test_serves_files_it_was_given(void **state)
{
	FILE *f = tmpfile();

	assert_non_null(f);
	assert_inside(check_file, fileno(f));
	fclose(f);
}

static void wakeup(int sig)
{
}

struct thread_state {
	pthread_barrier_t ready;
	int event_fd;
	int interrupted;
	atomic_bool left;
};

/* Allocates enough for an arena of its own, and is then woken out of a blocking read. */
static void *thread_main(void *data)
{
	struct thread_state *t = data;
	uint64_t value;
	char *p[64];

	for (size_t i = 0; i < 64; i++) {
		p[i] = malloc(256 << 10);
		if (!p[i])
			return NULL;
		memset(p[i], 1, 256 << 10);
	}
	for (size_t i = 64; i > 0; i--)
		free(p[i - 1]);
	pthread_barrier_wait(&t->ready);
	t->interrupted = read(t->event_fd, &value, sizeof(value)) < 0 && errno == EINTR;
	atomic_store(&t->left, true);
	return data;
}

static int check_threads(int arg)
{
	struct sigaction sa = {.sa_handler = wakeup};
	struct thread_state t[4];
	pthread_t thread[4];
	const struct timespec pause = {.tv_nsec = 5000000};

	sigaction(SIGUSR1, &sa, NULL);
	for (size_t i = 0; i < 4; i++) {
		atomic_init(&t[i].left, false);
		t[i].event_fd = eventfd(0, EFD_CLOEXEC);
		pthread_barrier_init(&t[i].ready, NULL, 2);
		if (t[i].event_fd < 0 || pthread_create(&thread[i], NULL, thread_main, &t[i]) != 0)
			return CHILD_WRONG;
	}
	for (size_t i = 0; i < 4; i++) {
		void *ret = NULL;

		pthread_barrier_wait(&t[i].ready);
		/* Repeated: the first may come before the thread waits */
		while (!atomic_load(&t[i].left)) {
			pthread_kill(thread[i], SIGUSR1);
			clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		}
		if (pthread_join(thread[i], &ret) != 0 || ret != &t[i] || !t[i].interrupted)
			return CHILD_WRONG;
	}
	return CHILD_OK;
}

static void test_threads_and_memory_work(void **state)
{
	assert_inside(check_threads, 0);
}

static int compare_bytes(const void *a, const void *b)
{
	return *(const unsigned char *)a - *(const unsigned char *)b;
}

/* What the C library asks the kernel behind our back: large sorts ask for the memory's size, large
 * prints and frees move the heap's end. */
static int check_library(int arg)
{
	size_t len = 4 << 20;
	unsigned char *p = malloc(len);
	char text[64];

	if (!p)
		return CHILD_WRONG;
	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)(i * 7919);
	qsort(p, len / 64, 64, compare_bytes);
	for (size_t i = 64; i < len; i += 64)
		if (p[i - 64] > p[i])
			return CHILD_WRONG;
	p = realloc(p, 8 * len);
	if (!p)
		return CHILD_WRONG;
	free(p);
	snprintf(text, sizeof(text), "%s %f", strerror(EIO), 0.5);
	return sysconf(_SC_NPROCESSORS_ONLN) > 0 ? CHILD_OK : CHILD_WRONG;
}

static void test_library_works(void **state)
{
	assert_inside(check_library, 0);
}

/* Receives a descriptor, as from the supervisor, and uses it. */
static int check_channel(int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int got;

	if (poll(&p, 1, 60000) != 1 || recvmsg(fd, &hdr, MSG_CMSG_CLOEXEC) != 1)
		return CHILD_WRONG;
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&hdr)), sizeof(got));
	return check_file(got);
}

static void test_receives_descriptors(void **state)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = {};
	struct iovec iov = {(void *)(uintptr_t) "x", 1};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);
	FILE *f = tmpfile();
	int pair[2], fd;

	assert_non_null(f);
	fd = fileno(f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	assert_int_equal(sendmsg(pair[0], &hdr, 0), 1);
	assert_inside(check_channel, pair[1]);
	close(pair[0]);
	close(pair[1]);
	fclose(f);
}

static int wait_for_byte(int fd)
{
	char byte = 'r';

	if (write(fd, &byte, 1) != 1)
		return CHILD_WRONG;
	return read(fd, &byte, 1) == 1 ? CHILD_OK : CHILD_WRONG;
}

/* The number behind a field of /proc/PID/status or limits, in this base. */
static unsigned long long proc_field(pid_t pid, const char *file, const char *field, int base)
{
	_cleanup_fclose_ FILE *f = NULL;
	char path[64], line[512];
	size_t n = strlen(field);

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, field, n) == 0)
			return strtoull(line + n, NULL, base);
	fail_msg("no %s in %s", field, path);
	return 0;
}

static bool same_namespace(pid_t pid, const char *ns)
{
	char path[64];
	struct stat ours, theirs;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, ns);
	assert_int_equal(stat(path, &theirs), 0);
	snprintf(path, sizeof(path), "/proc/self/ns/%s", ns);
	assert_int_equal(stat(path, &ours), 0);
	return ours.st_ino == theirs.st_ino;
}

static unsigned root_entries(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/root/", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2; /* . and .. */
}

static void look_at_root_worker(pid_t pid)
{
	assert_int_not_equal(proc_field(pid, "status", "Uid:", 10), 0);
	assert_int_not_equal(proc_field(pid, "status", "Gid:", 10), 0);
	assert_int_equal(proc_field(pid, "status", "CapBnd:", 16), 0);
	assert_false(same_namespace(pid, "mnt"));
	assert_false(same_namespace(pid, "net"));
	assert_false(same_namespace(pid, "ipc"));
	assert_false(same_namespace(pid, "uts"));
	assert_int_equal(root_entries(pid), 0);
}

static void look_at_worker(pid_t pid)
{
	assert_int_equal(proc_field(pid, "status", "CapPrm:", 16), 0);
	assert_int_equal(proc_field(pid, "status", "CapEff:", 16), 0);
	assert_int_equal(proc_field(pid, "status", "CapAmb:", 16), 0);
	assert_int_equal(proc_field(pid, "status", "NoNewPrivs:", 10), 1);
	assert_int_equal(proc_field(pid, "status", "Seccomp:", 10), FUSEIMG_SECCOMP ? 2 : 0);
	assert_int_equal(proc_field(pid, "limits", "Max core file size", 10), 0);
	if (!as_user)
		look_at_root_worker(pid);
}

static void test_seen_from_outside(void **state)
{
	int pair[2], status = 0;
	char byte;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	pid = start_inside(wait_for_byte, pair[1]);
	close(pair[1]);
	assert_int_equal(read(pair[0], &byte, 1), 1);
	look_at_worker(pid);
	assert_int_equal(write(pair[0], &byte, 1), 1);
	close(pair[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), CHILD_OK);
}

/* In a chroot of a plain directory the root cannot be exchanged; all else still holds. */
static void test_chroot(void **state)
{
	char dir[] = "/tmp/fuseimg-test-XXXXXX";
	int status = 0;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	assert_non_null(mkdtemp(dir));
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (chroot(dir) < 0 || chdir("/") < 0)
			_exit(CHILD_REFUSED);
		status = run_inside(check_paths, 0);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : CHILD_WRONG);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	rmdir(dir);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), CHILD_OK);
}

/* A container's filter: this call is answered with an error. */
static bool refuse(int call, int error)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	bool done;

	if (!ctx)
		return false;
	if (geteuid() == 0) /* else the kernel wants it */
		(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);
	done = seccomp_rule_add(ctx, SCMP_ACT_ERRNO((uint32_t)error), call, 0) == 0 &&
	       seccomp_load(ctx) == 0;
	seccomp_release(ctx);
	return done;
}

/* What sandbox_enter() answers where a call is refused; CHILD_REFUSED: it failed, and its sentence
 * has this word. */
static int enter_where_refused(int call, int error, const char *word)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct diag diag = {0};
		int r;

		if (!refuse(call, error) ||
		    (as_user && geteuid() == 0 &&
		     (setgroups(0, NULL) < 0 || setresgid(OUTSIDER, OUTSIDER, OUTSIDER) < 0 ||
		      setresuid(OUTSIDER, OUTSIDER, OUTSIDER) < 0)))
			_exit(CHILD_WRONG);
		r = sandbox_enter(NULL, &diag);
		/* Builds without the filter have nothing that stands for all the others */
		if (r >= 0 && FUSEIMG_SECCOMP && check_paths(0) != CHILD_OK)
			_exit(CHILD_WRONG);
		if (r < 0)
			_exit(strstr(diag.text, word) ? CHILD_REFUSED : CHILD_WRONG);
		_exit(r);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* What a system may lack is done without, and nothing else. */
static void test_what_is_missing(void **state)
{
	static const int errors[] = {EPERM, ENOSYS, EOPNOTSUPP};
	int usual = enter_where_refused(SCMP_SYS(reboot), EPERM, "");

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		assert_int_equal(
			enter_where_refused(SCMP_SYS(landlock_create_ruleset), errors[i], ""),
			usual | SANDBOX_LACKS_LANDLOCK);
	assert_int_equal(enter_where_refused(SCMP_SYS(landlock_create_ruleset), ENOMEM, "Landlock"),
			 CHILD_REFUSED);
	if (!(usual & SANDBOX_LACKS_LANDLOCK)) /* half of it is as strange as an error */
		assert_int_equal(
			enter_where_refused(SCMP_SYS(landlock_restrict_self), EPERM, "Landlock"),
			CHILD_REFUSED);
	assert_int_equal(enter_where_refused(SCMP_SYS(unshare), EPERM, "namespaces"),
			 as_user ? usual | SANDBOX_LACKS_NAMESPACES : CHILD_REFUSED);
	assert_int_equal(enter_where_refused(SCMP_SYS(capset), EPERM, "capabilities"),
			 CHILD_REFUSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opens_nothing),
		cmocka_unit_test(test_forbidden_calls_kill),
		cmocka_unit_test(test_serves_files_it_was_given),
		cmocka_unit_test(test_threads_and_memory_work),
		cmocka_unit_test(test_library_works),
		cmocka_unit_test(test_receives_descriptors),
		cmocka_unit_test(test_seen_from_outside),
		cmocka_unit_test(test_chroot),
		cmocka_unit_test(test_what_is_missing),
	};
	int failed = cmocka_run_group_tests_name("sandbox, as we are", tests, NULL, NULL);

	as_user = true;
	if (geteuid() == 0)
		failed += cmocka_run_group_tests_name("sandbox, as a user", tests, NULL, NULL);
	return failed;
}
