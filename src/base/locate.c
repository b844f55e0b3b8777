/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/locate.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/setting.h"

/*
 * Every file is opened in two steps. O_PATH finds the inode and does nothing to it: no FIFO hangs,
 * no tape rewinds. Then it is judged: its type, and the path under which the kernel knows it. What
 * passed is opened for real through /proc/self/fd, which leads to that same inode whatever has
 * happened to its name since.
 */

/* One search, and how its sentences begin. */
struct locate {
	char subject[640];
	struct locate_how how;
	struct diag *diag;
};

struct locate_quoted {
	char text[300];
};

static const char *locate_quote(struct locate_quoted *q, const char *s)
{
	return diag_quote(q->text, sizeof(q->text), s, strlen(s));
}

int locate_policy_parse(const char *s, struct locate_policy *ret, struct diag *diag)
{
	struct locate_policy policy = {.backing = LOCATE_LISTED};
	struct locate_quoted q;

	if (strcmp(s, "directory") == 0 || strcmp(s, "none") == 0) {
		policy.backing = *s == 'd' ? LOCATE_SAME_DIRECTORY : LOCATE_NONE;
		*ret = policy;
		return 0;
	}
	for (const char *p = s; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL)
		if (*p != '/')
			return diag_set(diag, -EINVAL,
					"backing is \"directory\", \"none\" or absolute paths with "
					"':' between them, not \"%s\"",
					locate_quote(&q, s));
	policy.dirs = strdup(s);
	if (!policy.dirs)
		return diag_errno(diag, -ENOMEM, "cannot keep the list of backing directories");
	*ret = policy;
	return 0;
}

void locate_policy_done(struct locate_policy *p)
{
	free(p->dirs);
	*p = (struct locate_policy){0};
}

static const char *locate_kind(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	case S_IFCHR:
		return "a character device";
	default:
		return "of an unknown kind";
	}
}

/*
 * The path under which the kernel knows fd. It counts only if it leads back to the same inode: that
 * of a deleted file, or of one outside our root, is not a name that could be judged.
 */
static int locate_real_path(const struct locate *l, int fd, const struct stat *st, char **ret)
{
	char link[64], path[PATH_MAX];
	struct stat now;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path));
	if (n < 0)
		return diag_errno(l->diag, -errno, "cannot find the path of %s in /proc",
				  l->subject);
	if ((size_t)n == sizeof(path))
		return diag_errno(l->diag, -ENAMETOOLONG, "cannot find the path of %s", l->subject);
	path[n] = '\0';
	if (path[0] != '/' || stat(path, &now) < 0 || now.st_dev != st->st_dev ||
	    now.st_ino != st->st_ino)
		return diag_set(l->diag, -ENOENT, "%s has been deleted or moved", l->subject);
	*ret = strdup(path);
	return *ret ? 0 : diag_errno(l->diag, -ENOMEM, "cannot open %s", l->subject);
}

/* A relative name in an image leaves open where it was looked for. */
static int locate_missing(const struct locate *l, const char *path)
{
	struct locate_quoted quoted;

	locate_quote(&quoted, path);
	if (strcmp(quoted.text, l->subject) == 0)
		return diag_set(l->diag, -ENOENT, "%s does not exist", l->subject);
	return diag_set(l->diag, -ENOENT, "%s does not exist: there is no %s", l->subject,
			quoted.text);
}

/* Finds the inode, refuses what is neither a file nor a block device. */
static int locate_find(const struct locate *l, const char *path, int *ret_fd, char **ret_real,
		       mode_t *ret_mode)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0 && errno == ENOENT)
		return locate_missing(l, path);
	if (fd < 0)
		return diag_errno(l->diag, -errno, "cannot open %s", l->subject);
	if (fstat(fd, &st) < 0)
		return diag_errno(l->diag, -errno, "cannot stat %s", l->subject);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return diag_set(l->diag, -EMEDIUMTYPE,
				"%s is %s; an image is a regular file or a block device",
				l->subject, locate_kind(st.st_mode));
	r = locate_real_path(l, fd, &st, ret_real);
	if (r < 0)
		return r;
	*ret_mode = st.st_mode;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Why could it not be opened, and what is to be done? link leads to the file. */
static int locate_cannot_open(const struct locate *l, const char *link, int error)
{
	bool denied = error == -EACCES || error == -EPERM;
	const char *file = l->how.settings;
	struct setting s;
	int fd;

	if (l->how.direct && error == -EINVAL)
		return diag_set(l->diag, error,
				"the file system of %s cannot do direct I/O; use %s", l->subject,
				setting_place(&s, file, "direct_io", "no"));
	if (error == -EROFS)
		return diag_set(l->diag, error, "%s is on a read-only file system; use %s",
				l->subject, setting_place(&s, file, "read_only", "yes"));
	if (error == -ETXTBSY)
		return diag_set(l->diag, error, "%s is in use as swap space or as a program",
				l->subject);
	if (!denied || !l->how.writable)
		return diag_errno(l->diag, error, "cannot open %s for reading%s", l->subject,
				  l->how.writable ? " and writing" : "");
	fd = open(link, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return diag_errno(l->diag, error, "cannot open %s even for reading", l->subject);
	close(fd);
	return diag_set(l->diag, error,
			"%s may be read but not written (%s); change its permissions, or use %s",
			l->subject, strerrordesc_np(-error),
			setting_place(&s, file, "read_only", "yes"));
}

/* The second step: opens for real what fd has found. */
static int locate_reopen(const struct locate *l, int fd, int *ret_fd)
{
	int flags = (l->how.writable ? O_RDWR : O_RDONLY) | (l->how.direct ? O_DIRECT : 0);
	char link[64];
	int opened;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	do
		opened = open(link, flags | O_CLOEXEC | O_NOCTTY);
	while (opened < 0 && errno == EINTR);
	if (opened < 0)
		return locate_cannot_open(l, link, -errno);
	*ret_fd = opened;
	return 0;
}

int locate_open_image(const char *path, const struct locate_how *how, int *ret_fd, char **ret_path,
		      struct diag *diag)
{
	struct locate l = {.how = *how, .diag = diag};
	_cleanup_free_ char *real = NULL;
	_cleanup_close_ int fd = -1;
	mode_t mode;
	int r;

	diag_quote(l.subject, sizeof(l.subject), path, strlen(path));
	r = locate_find(&l, path, &fd, &real, &mode);
	if (r < 0)
		return r;
	r = locate_reopen(&l, fd, ret_fd);
	if (r < 0)
		return r;
	*ret_path = TAKE_PTR(real);
	return 0;
}

/* Is path below dir? dir_len: without a '/' at the end, so that the root is "". */
static bool locate_below(const char *dir, size_t dir_len, const char *path)
{
	return strncmp(path, dir, dir_len) == 0 && path[dir_len] == '/';
}

/*
 * At or below the directory of the top image. Two directories are no home of images, and all that
 * is below them must not be within reach of what an image says: the root, of which only the files
 * directly in it count, and that of a device node, of which nothing does.
 */
static bool locate_beside(const char *top, const char *real, mode_t mode)
{
	const char *slash = strrchr(top, '/');
	struct stat st;

	if (!slash || S_ISBLK(mode) || stat(top, &st) < 0 || S_ISBLK(st.st_mode))
		return false;
	if (slash == top)
		return strrchr(real, '/') == real;
	return locate_below(top, (size_t)(slash - top), real);
}

/*
 * Does an entry of the list reach this file? A directory is a place to read from, with all that is
 * below it. Writing takes more: that it names the file, or the directory in which this stands, and
 * of a block device nothing but its name will do.
 */
static bool locate_reaches(const char *entry, const char *real, bool writable, mode_t mode)
{
	size_t n = strcmp(entry, "/") == 0 ? 0 : strlen(entry);

	if (strcmp(entry, real) == 0)
		return true;
	if (!locate_below(entry, n, real))
		return false;
	return !writable || (!S_ISBLK(mode) && !strchr(real + n + 1, '/'));
}

static bool locate_listed(const char *list, const char *real, bool writable, mode_t mode)
{
	while (list) {
		const char *end = strchrnul(list, ':');
		_cleanup_free_ char *entry = strndup(list, (size_t)(end - list));
		_cleanup_free_ char *real_entry = entry ? realpath(entry, NULL) : NULL;

		if (real_entry && locate_reaches(real_entry, real, writable, mode))
			return true;
		list = *end ? end + 1 : NULL;
	}
	return false;
}

/* The list as it is, and one more: BACKING= that would allow it. */
static const char *locate_allow(struct setting *s, const char *file,
				const struct locate_policy *policy, const char *more)
{
	bool listed = policy->backing == LOCATE_LISTED;
	struct locate_quoted dirs;
	char value[2 * sizeof(dirs)];

	snprintf(value, sizeof(value), "%s%s%s", listed ? locate_quote(&dirs, policy->dirs) : "",
		 listed ? ":" : "", more);
	return setting_place(s, file, "backing", value);
}

int locate_check_writing(const struct locate_policy *policy, const char *real, mode_t mode,
			 const char *settings, struct diag *diag)
{
	bool listed = policy->backing == LOCATE_LISTED;
	struct locate_quoted path;
	struct setting allow, read_only;

	if (listed && locate_listed(policy->dirs, real, true, mode))
		return 0;
	locate_quote(&path, real);
	return diag_set(diag, -EACCES,
			"%s is only written to where %s is listed; allow it with %s, or use %s",
			path.text, S_ISBLK(mode) ? "this block device" : "it, or its directory,",
			locate_allow(&allow, settings, policy, path.text),
			setting_name(&read_only, settings, "read_only", "yes"));
}

static int locate_judge_writing(const struct locate *l, const struct locate_policy *policy,
				const char *real, mode_t mode)
{
	int r = locate_check_writing(policy, real, mode, l->how.settings, l->diag);

	if (r < 0)
		diag_prefix(l->diag, "%s", l->subject);
	return r;
}

static int locate_judge(const struct locate *l, const struct locate_policy *policy, const char *top,
			const char *real, mode_t mode)
{
	bool listed = policy->backing == LOCATE_LISTED;
	size_t dir_len = (size_t)(strrchr(real, '/') - real);
	struct locate_quoted path, dir;
	struct setting allow;

	if (l->how.writable)
		return locate_judge_writing(l, policy, real, mode);
	if (listed ? locate_listed(policy->dirs, real, false, mode)
		   : locate_beside(top, real, mode))
		return 0;
	diag_quote(dir.text, sizeof(dir.text), real, max_u64(dir_len, 1));
	return diag_set(l->diag, -EACCES, "%s is %s, %s; allow it with %s", l->subject,
			locate_quote(&path, real),
			listed		? "outside the listed directories"
			: S_ISBLK(mode) ? "a block device, which is opened only where listed"
					: "outside the directory of the image",
			locate_allow(&allow, l->how.settings, policy, dir.text));
}

/* The plain file name in what an image says, or an error: a protocol is a ':' before any '/'. */
static int locate_strip(const struct locate *l, const char *name, const char **ret)
{
	size_t n = strcspn(name, ":/");

	if (name[n] != ':') {
		*ret = name;
	} else if (n == strlen("file") && strncasecmp(name, "file", n) == 0) {
		*ret = name + n + 1;
	} else {
		return diag_set(l->diag, -EOPNOTSUPP,
				"%s is not a plain file name, and no protocol but \"file:\" is "
				"understood; qemu-img rebase -u can write another name",
				l->subject);
	}
	if (!**ret)
		return diag_set(l->diag, -EINVAL, "%s has no name", l->subject);
	return 0;
}

/* name as seen from the directory of parent. */
static int locate_join(const char *parent, const char *name, char **ret)
{
	const char *slash = strrchr(parent, '/');
	int n;

	if (*name == '/')
		n = asprintf(ret, "%s", name);
	else if (*parent == '/')
		n = asprintf(ret, "%.*s/%s", (int)(slash - parent), parent, name);
	else
		return -EINVAL; /* never resolved against our own working directory */
	return n < 0 ? -ENOMEM : 0;
}

static void locate_init_named(struct locate *l, const char *parent, const char *name)
{
	struct locate_quoted n, p;

	snprintf(l->subject, sizeof(l->subject), "the file \"%s\" that %s names",
		 locate_quote(&n, name), locate_quote(&p, parent));
}

int locate_open_named(const struct locate_policy *policy, const char *top, const char *parent,
		      const char *name, const struct locate_how *how, int *ret_fd, char **ret_path,
		      struct diag *diag)
{
	struct locate l = {.how = *how, .diag = diag};
	_cleanup_free_ char *path = NULL, *real = NULL;
	_cleanup_close_ int fd = -1;
	struct setting none;
	mode_t mode;
	int r;

	locate_init_named(&l, parent, name);
	if (policy->backing == LOCATE_NONE)
		return diag_set(diag, -EACCES, "%s is not opened: %s forbids any", l.subject,
				setting_place(&none, how->settings, "backing", "none"));
	r = locate_strip(&l, name, &name);
	if (r < 0)
		return r;
	r = locate_join(parent, name, &path);
	if (r < 0)
		return diag_errno(diag, r, "cannot resolve %s", l.subject);
	r = locate_find(&l, path, &fd, &real, &mode);
	if (r < 0)
		return r;
	r = locate_judge(&l, policy, top, real, mode);
	if (r < 0)
		return r;
	r = locate_reopen(&l, fd, ret_fd);
	if (r < 0)
		return r;
	*ret_path = TAKE_PTR(real);
	return 0;
}
