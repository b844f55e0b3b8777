/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The table of drivers, and what is the same for all of them. */

#include "format/format.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "format/drivers.h"

const struct format *const formats[] = {&format_qcow2, &format_raw, NULL};

const struct format *format_by_name(const char *name)
{
	for (size_t i = 0; formats[i]; i++)
		if (strcmp(formats[i]->name, name) == 0)
			return formats[i];
	return NULL;
}

/* 1 where the magic stands in the store, 0 where not (a store too short holds none). */
static int format_has_magic(struct store *store, const struct magic *magic)
{
	uint8_t bytes[sizeof(magic->bytes)];
	ssize_t n = store_read(store, bytes, magic->len, magic->off);

	if (n < 0)
		return (int)n;
	return n == magic->len && memcmp(bytes, magic->bytes, magic->len) == 0;
}

int format_probe(struct store *store, const struct format **ret)
{
	for (size_t i = 0; formats[i]; i++)
		for (size_t k = 0; k < ARRAY_SIZE(formats[i]->magics); k++) {
			const struct magic *magic = &formats[i]->magics[k];
			int r;

			if (magic->len == 0)
				break;
			r = format_has_magic(store, magic);
			if (r < 0)
				return r;
			if (r > 0) {
				*ret = formats[i];
				return 0;
			}
		}
	*ret = NULL;
	return 0;
}

void format_info_add(struct format_info *info, const char *key, const char *fmt, ...)
{
	struct format_info_item *item;
	va_list ap;

	if (info->n == FORMAT_INFO_MAX)
		return;
	item = &info->items[info->n++];
	item->key = key;
	va_start(ap, fmt);
	vsnprintf(item->value, sizeof(item->value), fmt, ap);
	va_end(ap);
}

int image_damaged(struct image *img, const char *fmt, ...)
{
	char *none = NULL, *text;
	va_list ap;
	int n;

	/* A damaged table is met again and again: only the first is worth a sentence */
	if (atomic_load_explicit(&img->damage, memory_order_relaxed))
		return -EUCLEAN;
	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n >= 0 && !atomic_compare_exchange_strong(&img->damage, &none, text))
		free(text);
	return -EUCLEAN;
}
