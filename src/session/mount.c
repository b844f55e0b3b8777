/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define FUSE_USE_VERSION 35

/*
 * Mounting and unmounting. This is the only file that knows of libfuse, and mounting is all that it
 * is used for: as root it calls mount(2), for others it runs the set-uid fusermount3.
 *
 * Both tell why they failed only on standard error. So fd 2 points to a memfd meanwhile, and
 * the first line found there becomes the sentence for the diag.
 */

#include "session/mount.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/io.h"

enum {
	MOUNT_SAID_MAX = 1024,
	MOUNT_FUSE_CONF_MAX = 64 * 1024,
};

struct mount {
	struct fuse_session *libfuse;
};

/* libfuse frees its copy of the mount point only when it unmounts, which is not its to do here. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:fuse_session_mount\n";
}
#endif

/* fd 2 while it is caught. */
struct mount_stderr {
	int saved, memfd;
};

static int mount_stderr_begin(struct mount_stderr *c)
{
	c->saved = -1;
	c->memfd = memfd_create("stderr", MFD_CLOEXEC);
	if (c->memfd < 0)
		return -errno;
	c->saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3); /* -1: it was closed */
	if (dup2(c->memfd, STDERR_FILENO) < 0) {
		int r = -errno;

		close(c->memfd);
		if (c->saved >= 0)
			close(c->saved);
		return r;
	}
	return 0;
}

/* Restores fd 2; said (MOUNT_SAID_MAX bytes) is what was written there. */
static void mount_stderr_end(struct mount_stderr *c, char *said)
{
	ssize_t n = io_pread(c->memfd, said, MOUNT_SAID_MAX - 1, 0);

	said[n > 0 ? n : 0] = '\0';
	if (c->saved >= 0) {
		dup2(c->saved, STDERR_FILENO);
		close(c->saved);
	} else {
		close(STDERR_FILENO);
	}
	close(c->memfd);
}

/* "fusermount3: mount failed: Permission denied\n..." -> "mount failed: Permission denied" */
static char *mount_first_line(char *said)
{
	static const char *const speakers[] = {"fusermount3: ", "fusermount: ", "fuse: "};

	for (size_t i = 0; i < ARRAY_SIZE(speakers); i++)
		if (strncmp(said, speakers[i], strlen(speakers[i])) == 0)
			said += strlen(speakers[i]);
	said[strcspn(said, "\n")] = '\0';
	return said;
}

/* The errno that a helper's line speaks of: all that is left of it. */
static int mount_errno_in(const char *line)
{
	static const int known[] = {EBUSY, EPERM,  EACCES, ENOENT, ENOTDIR, ENODEV,
				    EROFS, EINVAL, ENOMEM, ENFILE, EMFILE,  ENOTCONN};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strstr(line, strerrordesc_np(known[i])))
			return -known[i];
	if (strstr(line, "no write access"))
		return -EACCES;
	if (strstr(line, "not found in"))
		return -EINVAL; /* umount2(2) says so of what is no mount point */
	return -EIO;
}

/* Does /etc/fuse.conf hold user_allow_other on a line by itself? When it cannot be read,
 * fusermount3 is left to decide. */
static bool mount_user_allow_other(void)
{
	_cleanup_free_ char *conf = NULL;
	char *state, *line;
	int r;

	r = io_read_file(AT_FDCWD, "/etc/fuse.conf", MOUNT_FUSE_CONF_MAX, &conf, NULL);
	if (r == -ENOENT)
		return false;
	if (r < 0)
		return true;
	for (line = strtok_r(conf, "\n", &state); line; line = strtok_r(NULL, "\n", &state)) {
		size_t len;

		line += strspn(line, " \t");
		len = strlen(line);
		while (len > 0 && isspace((unsigned char)line[len - 1]))
			line[--len] = '\0';
		if (strcmp(line, "user_allow_other") == 0)
			return true;
	}
	return false;
}

/* The -o argument: commas and backslashes of the source are escaped, since libfuse splits there. */
static char *mount_option_string(const struct session_mount_options *o)
{
	_cleanup_free_ char *source = malloc(2 * strlen(o->source) + 1);
	char *options, *p = source;

	if (!source)
		return NULL;
	for (const char *s = o->source; *s; s++) {
		if (*s == ',' || *s == '\\')
			*p++ = '\\';
		*p++ = *s;
	}
	*p = '\0';
	if (asprintf(&options,
		     "fsname=%s,subtype=fuseimg,nosuid,nodev,noatime,default_permissions%s%s",
		     source, o->allow_other ? ",allow_other" : "", o->read_only ? ",ro" : "") < 0)
		return NULL;
	return options;
}

/* libfuse's session: it never sees a request, so it has no operations. */
static struct fuse_session *mount_session_new(char *options)
{
	static const struct fuse_lowlevel_ops none;
	char name[] = "fuseimg", dash_o[] = "-o";
	char *argv[] = {name, dash_o, options, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *se = fuse_session_new(&args, &none, sizeof(none), NULL);

	fuse_opt_free_args(&args);
	return se;
}

static int mount_call(char *options, const char *target, struct fuse_session **ret)
{
	struct fuse_session *se = mount_session_new(options);

	if (!se)
		return -EINVAL;
	if (fuse_session_mount(se, target) < 0) {
		fuse_session_destroy(se);
		return -EIO;
	}
	*ret = se;
	return 0;
}

static int mount_refused(const char *target, int error, const char *said, struct diag *diag)
{
	bool set_uid = error == -EPERM && geteuid() != 0;

	return diag_set(diag, error, "cannot mount on %s: %s%s", target,
			*said ? said : "libfuse does not say why",
			set_uid ? "; fusermount3 (package fuse3) must be set-uid root" : "");
}

int mount_open(const struct session_mount_options *options, const char *target, struct mount **ret,
	       int *ret_fd, struct diag *diag)
{
	_cleanup_free_ struct mount *m = calloc(1, sizeof(*m));
	_cleanup_free_ char *string = mount_option_string(options);
	char buf[MOUNT_SAID_MAX], *said;
	struct mount_stderr caught;
	int r, fd;

	if (!m || !string)
		return diag_errno(diag, -ENOMEM, "mounting on %s", target);
	if (options->allow_other && geteuid() != 0 && !mount_user_allow_other())
		return diag_set(diag, -EPERM,
				"other users may not be let in (allow_other) unless /etc/fuse.conf "
				"has a line \"user_allow_other\"");
	r = mount_stderr_begin(&caught);
	if (r < 0)
		return diag_errno(diag, r, "mounting on %s", target);
	r = mount_call(string, target, &m->libfuse);
	mount_stderr_end(&caught, buf);
	said = mount_first_line(buf);
	if (r < 0)
		return mount_refused(target, *said ? mount_errno_in(said) : r, said, diag);
	fd = fcntl(fuse_session_fd(m->libfuse), F_DUPFD_CLOEXEC, 3);
	if (fd < 0) {
		r = diag_errno(diag, -errno, "mounting on %s", target);
		mount_undo(TAKE_PTR(m));
		return r;
	}
	*ret = TAKE_PTR(m);
	*ret_fd = fd;
	return 0;
}

void mount_keep(struct mount *m)
{
	fuse_session_destroy(m->libfuse);
	free(m);
}

void mount_undo(struct mount *m)
{
	fuse_session_unmount(m->libfuse);
	mount_keep(m);
}

/* fusermount3 -u, with what it says kept from the terminal. */
static int mount_run_fusermount(const char *target)
{
	char program[] = "fusermount3", minus_u[] = "-u", dashes[] = "--", locale[] = "LC_ALL=C",
	     path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	char *argv[] = {program, minus_u, dashes, (char *)(uintptr_t)target, NULL};
	char *env[] = {locale, path, NULL};
	_cleanup_close_ int out = memfd_create("fusermount", MFD_CLOEXEC);
	posix_spawn_file_actions_t actions;
	char said[MOUNT_SAID_MAX];
	int r, status;
	ssize_t n;
	pid_t pid;

	if (out < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out, STDERR_FILENO);
	r = -posix_spawnp(&pid, program, &actions, NULL, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	n = io_pread(out, said, sizeof(said) - 1, 0);
	said[n > 0 ? n : 0] = '\0';
	return mount_errno_in(said);
}

int session_unmount(const char *target)
{
	if (umount2(target, UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno != EPERM || geteuid() == 0)
		return -errno;
	return mount_run_fusermount(target);
}

int session_remount(const char *target, bool read_only)
{
	unsigned long flags = MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOATIME;

	if (mount(NULL, target, NULL, flags | (read_only ? MS_RDONLY : 0), NULL) < 0)
		return -errno;
	return 0;
}
