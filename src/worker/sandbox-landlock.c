/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker/sandbox.h"

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

/* As in linux/landlock.h of Linux 6.12; Debian 12's header ends with Linux 6.1. */
struct landlock_attr {
	uint64_t handled_access_fs;
	uint64_t handled_access_net; /* since ABI 4 */
	uint64_t scoped;	     /* since ABI 6 */
};

enum {
	LANDLOCK_CREATE_VERSION = 1 << 0,
	LANDLOCK_FS_1 = (1 << 13) - 1,	 /* read, write, execute, make and remove of every kind */
	LANDLOCK_FS_2 = 1 << 13,	 /* rename between directories */
	LANDLOCK_FS_3 = 1 << 14,	 /* truncate by path */
	LANDLOCK_FS_5 = 1 << 15,	 /* ioctl on devices opened from here on */
	LANDLOCK_NET_4 = (1 << 2) - 1,	 /* bind and connect by TCP */
	LANDLOCK_SCOPE_6 = (1 << 2) - 1, /* abstract sockets, signals */
};

/* What this kernel can deny; the others' bits would be refused. */
static struct landlock_attr sandbox_landlock_attr(long abi)
{
	struct landlock_attr attr = {.handled_access_fs = LANDLOCK_FS_1};

	if (abi >= 2)
		attr.handled_access_fs |= LANDLOCK_FS_2;
	if (abi >= 3)
		attr.handled_access_fs |= LANDLOCK_FS_3;
	if (abi >= 4)
		attr.handled_access_net = LANDLOCK_NET_4;
	if (abi >= 5)
		attr.handled_access_fs |= LANDLOCK_FS_5;
	if (abi >= 6)
		attr.scoped = LANDLOCK_SCOPE_6;
	return attr;
}

/* Every right is handled and no rule grants one. Descriptors that are open already keep theirs. */
int sandbox_landlock(struct diag *diag)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_VERSION);
	_cleanup_close_ int ruleset = -1;
	struct landlock_attr attr;

	/* Not built in; not enabled at boot; refused by the system call filter that a container
	 * runs under. The question itself needs no right, so EPERM never is Landlock's own answer.
	 */
	if (abi < 0 && (errno == ENOSYS || errno == EOPNOTSUPP || errno == EPERM))
		return SANDBOX_LACKS_LANDLOCK;
	if (abi < 0)
		return diag_errno(diag, -errno, "Landlock");
	attr = sandbox_landlock_attr(abi);
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset < 0)
		return diag_errno(diag, -errno, "Landlock ruleset");
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return diag_errno(diag, -errno, "Landlock");
	return 0;
}
