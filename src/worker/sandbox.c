/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "config.h"

#ifndef PR_SET_IO_FLUSHER /* Linux 5.6 */
#define PR_SET_IO_FLUSHER 57
#endif

enum {
	SANDBOX_NOBODY = 65534,
	SANDBOX_FILES_MAX = 256, /* slots, clones and a full chain are well below */
};

#if !FUSEIMG_SECCOMP
/* The leak checker wants to trace the process and to read /proc: nobody who is in here may. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return 1;
}
#endif

struct sandbox_ids {
	uid_t uid;
	gid_t gid;
};

/* Looked up before the root directory goes. */
static struct sandbox_ids sandbox_find_ids(void)
{
	const struct passwd *user = getpwnam(FUSEIMG_WORKER_USER) ?: getpwnam("nobody");

	if (!user || user->pw_uid == 0)
		return (struct sandbox_ids){SANDBOX_NOBODY, SANDBOX_NOBODY};
	return (struct sandbox_ids){user->pw_uid, user->pw_gid};
}

static int sandbox_limit(__rlimit_resource_t resource, rlim_t max, struct diag *diag)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) < 0)
		return diag_errno(diag, -errno, "getrlimit");
	if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max > max)
		limit.rlim_max = max;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(resource, &limit) < 0)
		return diag_errno(diag, -errno, "setrlimit");
	return 0;
}

/*
 * What no right is needed for. RLIMIT_NPROC stays as it is: it counts the threads of all workers
 * of the system user together, and the filter lets none of them fork anyhow.
 */
static int sandbox_attributes(struct diag *diag)
{
	int r;

	/* A core file would hold what the guest's disk holds */
	r = sandbox_limit(RLIMIT_CORE, 0, diag);
	if (r >= 0)
		r = sandbox_limit(RLIMIT_NOFILE, SANDBOX_FILES_MAX, diag);
	if (r < 0)
		return r;
	/* The image's file system may wait for us to write back pages: reclaim on our behalf must
	 * not wait for it. Needs CAP_SYS_RESOURCE, which a container's root may lack. */
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0 && errno != EPERM && errno != EINVAL)
		return diag_errno(diag, -errno, "PR_SET_IO_FLUSHER");
	return 0;
}

/* As an ordinary user. There is no way back out of half of it, and a mount namespace whose old
 * root stays would hold our own mount: so a child tries first. */
static int sandbox_root_try(struct diag *diag)
{
	int status = 0;
	pid_t pid = fork();

	if (pid < 0)
		return diag_errno(diag, -errno, "fork");
	if (pid == 0)
		_exit(sandbox_root_enter(true, NULL) < 0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return SANDBOX_LACKS_NAMESPACES;
	return sandbox_root_enter(true, diag);
}

static int sandbox_drop_bounding_set(bool must, struct diag *diag)
{
	for (cap_value_t cap = 0; CAP_IS_SUPPORTED(cap); cap++)
		if (cap_drop_bound(cap) < 0 && must)
			return diag_errno(diag, -errno, "dropping capability %d", cap);
	return 0;
}

static int sandbox_drop_ids(struct sandbox_ids ids, struct diag *diag)
{
	if (setgroups(0, NULL) < 0)
		return diag_errno(diag, -errno, "setgroups");
	if (setresgid(ids.gid, ids.gid, ids.gid) < 0)
		return diag_errno(diag, -errno, "setresgid to %u", ids.gid);
	if (setresuid(ids.uid, ids.uid, ids.uid) < 0)
		return diag_errno(diag, -errno, "setresuid to %u", ids.uid);
	return 0;
}

static int sandbox_drop_capabilities(struct diag *diag)
{
	cap_t none = cap_init();
	int r = 0;

	if (!none)
		return diag_errno(diag, -errno, "capabilities");
	if (cap_set_proc(none) < 0)
		r = diag_errno(diag, -errno, "dropping all capabilities");
	cap_free(none);
	return r;
}

static int sandbox_enter_as_root(struct diag *diag)
{
	struct sandbox_ids ids = sandbox_find_ids();
	int r, lacks;

	r = lacks = sandbox_root_enter(false, diag);
	if (r >= 0)
		r = sandbox_drop_bounding_set(true, diag);
	if (r >= 0)
		r = sandbox_drop_ids(ids, diag);
	return r < 0 ? r : lacks;
}

static int sandbox_enter_as_user(struct diag *diag)
{
	int lacks = sandbox_root_try(diag), r;

	if (lacks < 0)
		return lacks;
	r = sandbox_drop_bounding_set(false, diag);
	return r < 0 ? r : lacks;
}

/* What is the same for everybody, once the rights of root are gone. */
static int sandbox_seal(sandbox_forbidden_fn forbidden, struct diag *diag)
{
	int r = 0;

	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = diag_errno(diag, -errno, "PR_SET_DUMPABLE");
	if (r >= 0 && FUSEIMG_SECCOMP)
		r = sandbox_seccomp(forbidden, diag);
	return r;
}

static int sandbox_drop_rights(struct diag *diag)
{
	int r = sandbox_drop_capabilities(diag);

	if (r >= 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = diag_errno(diag, -errno, "PR_SET_NO_NEW_PRIVS");
	return r;
}

int sandbox_enter(sandbox_forbidden_fn forbidden, struct diag *diag)
{
	int r = sandbox_attributes(diag), lacks = 0;

	if (r >= 0)
		r = lacks =
			geteuid() == 0 ? sandbox_enter_as_root(diag) : sandbox_enter_as_user(diag);
	if (r >= 0)
		r = sandbox_drop_rights(diag);
	if (r >= 0)
		r = sandbox_landlock(diag);
	if (r >= 0) {
		lacks |= r;
		r = sandbox_seal(forbidden, diag);
	}
	if (r < 0)
		diag_prefix(diag, "the worker cannot give up its rights");
	return r < 0 ? r : lacks;
}

int sandbox_enter_narrow(struct diag *diag)
{
	/* No look-up of a name: whom it asks may wait for udev */
	const struct sandbox_ids nobody = {SANDBOX_NOBODY, SANDBOX_NOBODY};
	int r = sandbox_attributes(diag);

	if (r >= 0)
		r = sandbox_drop_bounding_set(geteuid() == 0, diag);
	if (r >= 0 && geteuid() == 0)
		r = sandbox_drop_ids(nobody, diag);
	if (r >= 0)
		r = sandbox_drop_rights(diag);
	if (r >= 0)
		r = sandbox_landlock(diag);
	if (r >= 0) /* with or without: udev's own filter forbids it up to systemd 252 at least */
		r = sandbox_seal(NULL, diag);
	if (r < 0)
		diag_prefix(diag, "the probe cannot give up its rights");
	return r;
}
