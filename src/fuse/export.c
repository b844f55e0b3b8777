/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/export.h"

#include <stdarg.h>
#include <string.h>
#include <syslog.h>

enum {
	EXPORT_LOG_SECONDS = 10,
	EXPORT_LOG_BURST = 10,
};

int export_init(struct export *ex, const struct serve_options *options, struct diag *diag)
{
	int r;

	*ex = (struct export){
		.image = options->image,
		.config = *options->config,
		.granted = *options->granted,
		.read_only = options->config->read_only || options->image->read_only,
		.log = options->log,
		.log_data = options->log_data,
	};
	r = slots_map_resident(options->slots_fd, &ex->slots, diag);
	if (r < 0)
		return r;
	mutex_init(&ex->attr_lock);
	mutex_init(&ex->grow_lock);
	mutex_init(&ex->log_rate.lock);
	return 0;
}

void export_done(struct export *ex)
{
	mutex_done(&ex->log_rate.lock);
	mutex_done(&ex->grow_lock);
	mutex_done(&ex->attr_lock);
	slots_unmap(&ex->slots);
}

/* May one more line be said? *ret_swallowed: how many were not, before it. */
static bool export_log_may(struct export_log *l, unsigned *ret_swallowed)
{
	struct timespec now;
	bool may;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	*ret_swallowed = 0;
	mutex_lock(&l->lock);
	if (now.tv_sec - l->window >= EXPORT_LOG_SECONDS) {
		*ret_swallowed = l->swallowed;
		l->window = now.tv_sec;
		l->said = l->swallowed = 0;
	}
	may = l->said < EXPORT_LOG_BURST;
	if (may)
		l->said++;
	else
		l->swallowed++;
	mutex_unlock(&l->lock);
	return may;
}

void export_log(struct export *ex, int error, uint64_t off, const char *fmt, ...)
{
	unsigned swallowed;
	char text[DIAG_MAX];
	va_list ap;
	size_t n;

	if (!ex->log || !export_log_may(&ex->log_rate, &swallowed))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	n = strlen(text);
	snprintf(text + n, sizeof(text) - n, ": %s", strerrordesc_np(-error) ?: "?");
	if (swallowed > 0) {
		n = strlen(text);
		snprintf(text + n, sizeof(text) - n, " (%u more failures before it)", swallowed);
	}
	ex->log(ex->log_data, LOG_ERR, error, off, text);
}

static int export_resize_locked(struct export *ex, uint64_t size) REQUIRES(ex->grow_lock)
{
	struct diag diag = {};
	int r;

	r = image_resize(ex->image, size, &diag);
	if (r < 0)
		export_log(ex, r, UINT64_MAX, "resizing to %llu bytes%s%s",
			   (unsigned long long)size, diag.text[0] ? ": " : "", diag.text);
	return r;
}

int export_grow(struct export *ex, uint64_t size)
{
	int r = 0;

	mutex_lock(&ex->grow_lock);
	if (image_size(ex->image) < size)
		r = export_resize_locked(ex, size);
	mutex_unlock(&ex->grow_lock);
	return r;
}

int export_resize(struct export *ex, uint64_t size)
{
	int r;

	mutex_lock(&ex->grow_lock);
	r = export_resize_locked(ex, size);
	mutex_unlock(&ex->grow_lock);
	return r;
}
