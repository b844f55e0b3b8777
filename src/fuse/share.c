/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuse/share.h"
#include "fuse/windows.h"

#include <stdarg.h>
#include <syslog.h>

int share_init(struct share *share, const struct serve_options *options, struct diag *diag)
{
	int r;

	*share = (struct share){
		.image = options->image,
		.config = *options->config,
		.granted = *options->granted,
		.read_only = options->config->read_only || options->image->read_only,
		.log = options->log,
		.log_data = options->log_data,
	};
	r = slots_map_resident(options->slots_fd, &share->slots, diag);
	if (r < 0)
		return r;
	mutex_init(&share->attr_lock);
	mutex_init(&share->grow_lock);
	if (options->set_partitions)
		windows_set(share, options->partitions, options->selected);
	return 0;
}

void share_done(struct share *share)
{
	mutex_done(&share->grow_lock);
	mutex_done(&share->attr_lock);
	slots_unmap(&share->slots);
}

void share_log(struct share *share, int error, uint64_t off, const char *fmt, ...)
{
	char text[DIAG_MAX];
	va_list ap;

	if (!share->log)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	share->log(share->log_data, LOG_ERR, error, off, text);
}

static int share_resize_locked(struct share *share, uint64_t size) REQUIRES(share->grow_lock)
{
	struct diag diag = {};
	int r;

	r = image_resize(share->image, size, &diag);
	if (r < 0)
		share_log(share, r, UINT64_MAX, "resizing to %llu bytes%s%s",
			  (unsigned long long)size, diag.text[0] ? ": " : "", diag.text);
	return r;
}

int share_grow(struct share *share, uint64_t size)
{
	int r = 0;

	mutex_lock(&share->grow_lock);
	if (image_size(share->image) < size)
		r = share_resize_locked(share, size);
	mutex_unlock(&share->grow_lock);
	return r;
}

int share_resize(struct share *share, uint64_t size)
{
	int r;

	mutex_lock(&share->grow_lock);
	r = share_resize_locked(share, size);
	mutex_unlock(&share->grow_lock);
	return r;
}
