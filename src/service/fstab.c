/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/fstab.h"

#include <errno.h>
#include <mntent.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"

static const char *const fstab_network_types[] = {
	"9p",  "afs",  "ceph", "cifs",	"davfs", "gfs",	  "gfs2", "glusterfs", "lustre",
	"nfs", "nfs4", "ncp",  "ncpfs", "ocfs2", "pvfs2", "smb3", "smbfs",     "sshfs",
};

const char *fstab_path(void)
{
	return secure_getenv("SYSTEMD_FSTAB") ?: "/etc/fstab";
}

void fstab_done(struct fstab *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->entries[i].spec);
		free(f->entries[i].dir);
		free(f->entries[i].type);
		free(f->entries[i].options);
	}
	free(f->entries);
	memset(f, 0, sizeof(*f));
}

static int fstab_add(struct fstab *f, const struct mntent *m)
{
	struct fstab_entry *grown = reallocarray(f->entries, f->n + 1, sizeof(*grown));
	struct fstab_entry *e;

	if (!grown)
		return -ENOMEM;
	f->entries = grown;
	e = &grown[f->n++];
	e->spec = strdup(m->mnt_fsname);
	e->dir = strdup(m->mnt_dir);
	e->type = strdup(m->mnt_type);
	e->options = strdup(m->mnt_opts);
	return e->spec && e->dir && e->type && e->options ? 0 : -ENOMEM;
}

int fstab_load(struct fstab *ret, struct diag *diag)
{
	_cleanup_(fstab_done) struct fstab f = {0};
	FILE *file = setmntent(fstab_path(), "re");
	const struct mntent *m;
	int r = 0;

	if (!file && errno != ENOENT)
		return diag_errno(diag, -errno, "%s", fstab_path());
	while (file && r == 0 && (m = getmntent(file)))
		r = fstab_add(&f, m);
	if (file)
		endmntent(file);
	if (r < 0)
		return diag_errno(diag, r, "%s", fstab_path());
	*ret = f;
	memset(&f, 0, sizeof(f));
	return 0;
}

/* Without slashes at its end: "" is the root. */
static size_t fstab_length(const char *dir)
{
	size_t n = strlen(dir);

	while (n > 0 && dir[n - 1] == '/')
		n--;
	return n;
}

const struct fstab_entry *fstab_find(const struct fstab *f, const char *dir)
{
	size_t n = fstab_length(dir);

	for (size_t i = 0; i < f->n; i++)
		if (fstab_length(f->entries[i].dir) == n && strncmp(f->entries[i].dir, dir, n) == 0)
			return &f->entries[i];
	return NULL;
}

bool fstab_needs_network(const struct fstab_entry *e)
{
	const char *type = strncmp(e->type, "fuse.", 5) == 0 ? e->type + 5 : e->type;
	const struct mntent m = {.mnt_opts = e->options};

	if (hasmntopt(&m, "_netdev"))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(fstab_network_types); i++)
		if (strcmp(fstab_network_types[i], type) == 0)
			return true;
	return false;
}

bool fstab_on_network(const struct fstab *f, const char *path)
{
	const struct fstab_entry *nearest = NULL;
	size_t longest = 0;

	for (size_t i = 0; i < f->n; i++) {
		const char *dir = f->entries[i].dir;
		size_t n = fstab_length(dir);

		if (dir[0] != '/' || strncmp(dir, path, n) != 0 || path[n] != '/' ||
		    (nearest && n < longest))
			continue;
		nearest = &f->entries[i];
		longest = n;
	}
	return nearest && fstab_needs_network(nearest);
}
