/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A worker that can be told to misbehave: whoever writes "ACT:name" to the disk, at the start of a
 * write, makes it try what the table below says, inside the very confinement that the supervisor's
 * worker has. The answer of the write tells what came of it:
 *
 *   success   it could be done
 *   EDQUOT    it was refused (EACCES, EPERM)
 *   EFBIG     there was nothing to be found (ENOENT, ENOSYS and others)
 *   EIO       the worker died of it, three times
 */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "image/image.h"

int __real_image_write(struct image *img, const void *buf, size_t len, uint64_t off);
int __wrap_image_write(struct image *img, const void *buf, size_t len, uint64_t off);

static long act_abort(void)
{
	abort();
}

static long act_open(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static long act_open_root(void)
{
	return open("/", O_PATH | O_CLOEXEC);
}

static long act_create(void)
{
	return open("/tmp/fuseimg-act", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
}

static long act_open_process(void)
{
	return open("/proc/1/environ", O_RDONLY | O_CLOEXEC);
}

static long act_open_parent(void)
{
	return open("/proc/self/fd/0", O_WRONLY | O_CLOEXEC);
}

static long act_mkdir(void)
{
	return syscall(SYS_mkdirat, AT_FDCWD, "/act", 0700);
}

static long act_unlink(void)
{
	return syscall(SYS_unlinkat, AT_FDCWD, "/etc/hostname", 0);
}

static long act_inet(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static long act_unix(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static long act_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 0);
}

static long act_execve(void)
{
	char *argv[] = {(char[]){"true"}, NULL};

	return execve("/bin/true", argv, NULL);
}

static long act_fork(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		_exit(0);
	return pid;
}

static long act_ptrace(void)
{
	return ptrace(PTRACE_ATTACH, 1, NULL, NULL);
}

static long act_kill(void)
{
	return kill(1, 0);
}

static long act_pidfd(void)
{
	return syscall(SYS_pidfd_open, 1, 0);
}

static long act_peek(void)
{
	char byte;
	struct iovec mine = {&byte, 1}, theirs = {(void *)0x1000, 1};

	return process_vm_readv(1, &mine, 1, &theirs, 1, 0);
}

static long act_mount(void)
{
	return mount("none", "/", "tmpfs", 0, NULL);
}

static long act_unshare(void)
{
	return unshare(CLONE_NEWUSER);
}

static long act_setuid(void)
{
	return syscall(SYS_setuid, 0);
}

static long act_bpf(void)
{
	return syscall(SYS_bpf, 0, NULL, 0);
}

static long act_io_uring(void)
{
	return syscall(SYS_io_uring_setup, 1, NULL);
}

static long act_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	return p == MAP_FAILED ? -1 : 0;
}

/* Who could catch the signal could hide what it tried. */
static long act_hide(void)
{
	return signal(SIGSYS, SIG_IGN) == SIG_ERR ? -1 : 0;
}

static const struct {
	const char *name;
	long (*f)(void);
} acts[] = {
	{"abort", act_abort},
	{"open", act_open},
	{"open_root", act_open_root},
	{"create", act_create},
	{"open_process", act_open_process},
	{"open_parent", act_open_parent},
	{"mkdir", act_mkdir},
	{"unlink", act_unlink},
	{"inet", act_inet},
	{"unix", act_unix},
	{"netlink", act_netlink},
	{"execve", act_execve},
	{"fork", act_fork},
	{"ptrace", act_ptrace},
	{"kill", act_kill},
	{"pidfd", act_pidfd},
	{"peek", act_peek},
	{"mount", act_mount},
	{"unshare", act_unshare},
	{"setuid", act_setuid},
	{"bpf", act_bpf},
	{"io_uring", act_io_uring},
	{"code", act_code},
	{"hide", act_hide},
};

static int act_try(const char *name)
{
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
		if (strcmp(acts[i].name, name) != 0)
			continue;
		if (acts[i].f() >= 0)
			return 0;
		return errno == EACCES || errno == EPERM ? -EDQUOT : -EFBIG;
	}
	return -EROFS; /* no such act */
}

int __wrap_image_write(struct image *img, const void *buf, size_t len, uint64_t off)
{
	static const char mark[] = "ACT:";
	char name[32] = "";

	if (len < sizeof(mark) + sizeof(name) || memcmp(buf, mark, strlen(mark)) != 0)
		return __real_image_write(img, buf, len, off);
	snprintf(name, sizeof(name), "%.*s", (int)sizeof(name) - 1,
		 (const char *)buf + strlen(mark));
	return act_try(name);
}
