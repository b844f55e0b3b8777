/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/checked.h"

/*
 * An allow-list: what is not here ends the process, and its last word is the call's number. A call
 * that only one of the supported C libraries or architectures makes belongs here as well.
 *
 * The filter answers such a call by SIGSYS, whose handler reports the number and then makes another
 * forbidden call: while SIGSYS is blocked, as in its handler, the kernel kills. The filter lets
 * nobody replace the handler. Who has taken over the process may still dodge it, in vain: the call
 * was not made.
 */

#ifndef PR_SET_VMA /* Linux 5.17: malloc names its memory */
#define PR_SET_VMA 0x53564d41
#endif

#ifdef __s390__
#define SANDBOX_CLONE_FLAGS 1
#else
#define SANDBOX_CLONE_FLAGS 0
#endif

/* CLONE_NEWTIME shares its bits with the exit signal, which threads do not have */
enum {
	SANDBOX_CLONE_MASK = CLONE_THREAD | CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS |
			     CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET,
};

static const int sandbox_allowed[] = {
	/* the image's bytes, the requests, the channel */
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(pread64),
	SCMP_SYS(preadv),
	SCMP_SYS(preadv2),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(pwrite64),
	SCMP_SYS(pwritev),
	SCMP_SYS(pwritev2),
	SCMP_SYS(lseek),
	SCMP_SYS(_llseek),
	SCMP_SYS(fallocate),
	SCMP_SYS(ftruncate),
	SCMP_SYS(ftruncate64),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(sync_file_range),
	SCMP_SYS(sync_file_range2),
	SCMP_SYS(fadvise64),
	SCMP_SYS(fadvise64_64),
	SCMP_SYS(readahead),
	SCMP_SYS(copy_file_range),
	SCMP_SYS(fstat),
	SCMP_SYS(fstat64),
	SCMP_SYS(fstatfs),
	SCMP_SYS(fstatfs64),
	SCMP_SYS(close),
	SCMP_SYS(sendmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(ppoll_time64),
	SCMP_SYS(eventfd2),
	SCMP_SYS(memfd_create), /* what libblkid looks at, see image/superblock.h */
	/* memory */
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(sysinfo), /* qsort() asks how much memory there is */
	/* threads and time */
	SCMP_SYS(futex),
	SCMP_SYS(futex_time64),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(membarrier),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(getcpu),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_gettime64),
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_getres_time64),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(clock_nanosleep_time64),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getrandom),
	/* signals, as far as they stay inside */
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigreturn),
	SCMP_SYS(rt_sigtimedwait),
	SCMP_SYS(rt_sigtimedwait_time64),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall),
	/* who am I */
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	/* the end */
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
};

/*
 * Answered rather than punished. The C library looks at files where it can do without: malloc reads
 * /proc/sys/vm/overcommit_memory before it shrinks an arena.
 */
static const int sandbox_no_access[] = {
	SCMP_SYS(open),	     SCMP_SYS(openat),	   SCMP_SYS(openat2),  SCMP_SYS(access),
	SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
};

static const unsigned long sandbox_ioctls[] = {
	BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKDISCARD, BLKZEROOUT,
};

static const int sandbox_fcntls[] = {
	F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_OFD_SETLK, F_OFD_GETLK, F_DUPFD_CLOEXEC, F_GET_SEALS,
};

static const int sandbox_prctls[] = {PR_SET_NAME, PR_GET_NAME, PR_SET_VMA};

/* A call that this architecture does not have needs no rule. */
static int sandbox_rule(scmp_filter_ctx ctx, uint32_t action, int nr)
{
	int r = seccomp_rule_add(ctx, action, nr, 0);

	return r == -EDOM ? 0 : r;
}

static int sandbox_rule_if(scmp_filter_ctx ctx, int nr, struct scmp_arg_cmp cmp)
{
	int r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, nr, 1, &cmp);

	return r == -EDOM ? 0 : r;
}

/* Calls of which only some uses are harmless. */
static int sandbox_add_conditions(scmp_filter_ctx ctx)
{
	const struct {
		int nr;
		struct scmp_arg_cmp cmp;
	} rules[] = {
		{SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
		{SCMP_SYS(mmap2), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
		{SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
		{SCMP_SYS(clone), SCMP_CMP(SANDBOX_CLONE_FLAGS, SCMP_CMP_MASKED_EQ,
					   SANDBOX_CLONE_MASK, CLONE_THREAD)},
		/* fstat() of some C libraries */
		{SCMP_SYS(newfstatat), SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH)},
		{SCMP_SYS(fstatat64), SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH)},
		{SCMP_SYS(statx), SCMP_A2(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH)},
		{SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid())},
		{SCMP_SYS(rt_sigaction), SCMP_A0(SCMP_CMP_NE, SIGSYS)},
		/* asking for limits, not changing them */
		{SCMP_SYS(prlimit64), SCMP_A2(SCMP_CMP_EQ, 0)},
	};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(rules); i++)
		r = sandbox_rule_if(ctx, rules[i].nr, rules[i].cmp);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(sandbox_ioctls); i++)
		r = sandbox_rule_if(ctx, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, sandbox_ioctls[i]));
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(sandbox_fcntls); i++) {
		struct scmp_arg_cmp cmp = SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)sandbox_fcntls[i]);

		r = sandbox_rule_if(ctx, SCMP_SYS(fcntl), cmp);
		if (r >= 0)
			r = sandbox_rule_if(ctx, SCMP_SYS(fcntl64), cmp);
	}
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(sandbox_prctls); i++)
		r = sandbox_rule_if(ctx, SCMP_SYS(prctl),
				    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)sandbox_prctls[i]));
	return r;
}

static int sandbox_build_filter(scmp_filter_ctx ctx)
{
	int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

	/* In udev's service another filter refuses seccomp(2), which libseccomp would ask whether
	 * the kernel knows this action */
	if (r == -EINVAL)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_THREAD);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(sandbox_allowed); i++)
		r = sandbox_rule(ctx, SCMP_ACT_ALLOW, sandbox_allowed[i]);
	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(sandbox_no_access); i++)
		r = sandbox_rule(ctx, SCMP_ACT_ERRNO(EACCES), sandbox_no_access[i]);
	/* Its flags stand in memory, where a filter cannot look: the C library falls back on clone
	 */
	if (r >= 0)
		r = sandbox_rule(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3));
	if (r >= 0)
		r = sandbox_add_conditions(ctx);
	return r;
}

/* Of the process, like the handler itself: a signal has no other way to find it. */
static sandbox_forbidden_fn sandbox_forbidden;

static void sandbox_on_forbidden(int sig, siginfo_t *info, void *context)
{
	if (sandbox_forbidden)
		sandbox_forbidden(info->si_syscall);
	for (;;) /* forbidden again, and SIGSYS is blocked now: this is the end */
		syscall(SYS_getppid);
}

int sandbox_seccomp(sandbox_forbidden_fn forbidden, struct diag *diag)
{
	const struct sigaction action = {.sa_sigaction = sandbox_on_forbidden,
					 .sa_flags = SA_SIGINFO};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int r;

	if (!ctx)
		return diag_errno(diag, -ENOMEM, "system call filter");
	sandbox_forbidden = forbidden;
	sigaction(SIGSYS, &action, NULL);
	r = sandbox_build_filter(ctx);
	if (r >= 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	return r < 0 ? diag_errno(diag, r, "system call filter") : 0;
}
