/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service/config-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"

enum {
	CONFIG_FILE_MAX = 64 << 10,
};

/* All pairs of a file, copied. */
struct config_file {
	struct env_file_pair *pairs;
	size_t n;
};

static void config_file_done(struct config_file *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free((char *)f->pairs[i].key);
		free((char *)f->pairs[i].value);
	}
	free(f->pairs);
}

static int config_file_collect(void *data, const struct env_file_pair *pair, struct diag *diag)
{
	struct config_file *f = data;
	struct env_file_pair *grown = reallocarray(f->pairs, f->n + 1, sizeof(*grown));
	struct env_file_pair copy = {.line = pair->line};

	if (!grown)
		return diag_errno(diag, -ENOMEM, "a configuration file");
	f->pairs = grown;
	copy.key = strdup(pair->key);
	copy.value = strdup(pair->value);
	f->pairs[f->n++] = copy;
	if (!copy.key || !copy.value)
		return diag_errno(diag, -ENOMEM, "a configuration file");
	return 0;
}

/* Is the i-th pair the last word on its key? */
static bool config_file_counts(const struct config_file *f, size_t i)
{
	for (size_t j = i + 1; j < f->n; j++)
		if (strcmp(f->pairs[i].key, f->pairs[j].key) == 0)
			return false;
	return true;
}

int config_file_visit(const char *path, env_file_fn f, void *data, struct diag *diag)
{
	_cleanup_(config_file_done) struct config_file file = {0};
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	int r = io_read_file(AT_FDCWD, path, CONFIG_FILE_MAX, &text, &len);

	if (r < 0)
		return diag_errno(diag, r, "%s", path);
	r = env_file_parse(path, text, len, config_file_collect, &file, diag);
	for (size_t i = 0; r >= 0 && i < file.n; i++)
		if (config_file_counts(&file, i))
			r = f(data, &file.pairs[i], diag);
	return r < 0 ? r : 0;
}

struct config_file_reading {
	const char *path;
	struct config *config;
	bool early;
};

static bool config_file_needs_service(const char *key)
{
	return strcmp(key, "OWNER") == 0 || strcmp(key, "GROUP") == 0;
}

static int config_file_set(void *data, const struct env_file_pair *pair, struct diag *diag)
{
	const struct config_file_reading *reading = data;
	int r;

	if (reading->early && config_file_needs_service(pair->key))
		return 0;
	r = config_set_variable(reading->config, pair->key, pair->value, diag);
	if (r < 0)
		diag_prefix(diag, "%s:%u", reading->path, pair->line);
	return r;
}

static int config_file_load(const char *path, bool early, struct config *ret, struct diag *diag)
{
	_cleanup_(config_done) struct config c = {0};
	struct config_file_reading reading = {.path = path, .config = &c, .early = early};
	int r = config_init(&c);

	if (r < 0)
		return diag_errno(diag, r, "%s", path);
	r = config_file_visit(path, config_file_set, &reading, diag);
	if (r < 0)
		return r;
	r = config_check(&c, diag);
	if (r < 0) {
		diag_prefix(diag, "%s", path);
		return r;
	}
	*ret = c;
	memset(&c, 0, sizeof(c));
	return 0;
}

int config_file_read(const char *path, struct config *ret, struct diag *diag)
{
	return config_file_load(path, false, ret, diag);
}

int config_file_read_early(const char *path, struct config *ret, struct diag *diag)
{
	return config_file_load(path, true, ret, diag);
}
