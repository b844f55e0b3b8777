/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/diag.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What fits; the text that was there is gone. */
static void diag_format(struct diag *diag, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));
static void diag_format(struct diag *diag, const char *fmt, va_list ap)
{
	vsnprintf(diag->text, sizeof(diag->text), fmt, ap);
}

static void diag_append(struct diag *diag, const char *text)
{
	size_t n = strlen(diag->text);

	snprintf(diag->text + n, sizeof(diag->text) - n, ": %s", text);
}

int diag_set(struct diag *diag, int error, const char *fmt, ...)
{
	va_list ap;

	if (!diag)
		return error;
	diag->error = error;
	va_start(ap, fmt);
	diag_format(diag, fmt, ap);
	va_end(ap);
	return error;
}

int diag_errno(struct diag *diag, int error, const char *fmt, ...)
{
	va_list ap;

	if (!diag)
		return error;
	diag->error = error;
	va_start(ap, fmt);
	diag_format(diag, fmt, ap);
	va_end(ap);
	diag_append(diag, strerrordesc_np(-error) ?: "?");
	return error;
}

int diag_prefix(struct diag *diag, const char *fmt, ...)
{
	char old[DIAG_MAX];
	va_list ap;

	if (!diag)
		return 0;
	memcpy(old, diag->text, sizeof(old));
	va_start(ap, fmt);
	diag_format(diag, fmt, ap);
	va_end(ap);
	diag_append(diag, old);
	return diag->error;
}

/* Length of the valid UTF-8 sequence of printable characters at p, 0 if there is none. */
static size_t diag_utf8_len(const unsigned char *p, size_t left)
{
	size_t n = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
	unsigned low = 0x80, high = 0xbf; /* of the second byte (Unicode, table 3-7) */

	if (*p < 0x80)
		return *p >= 0x20 && *p != 0x7f;
	if (*p < 0xc2 || *p > 0xf4 || n > left)
		return 0;
	if (*p == 0xe0 || *p == 0xc2) /* overlong forms, C1 control characters */
		low = 0xa0;
	else if (*p == 0xf0)
		low = 0x90;
	else if (*p == 0xed) /* surrogates */
		high = 0x9f;
	else if (*p == 0xf4)
		high = 0x8f;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

const char *diag_quote(char *dst, size_t dst_size, const void *src, size_t len)
{
	const unsigned char *p = src, *end = p + len;
	size_t o = 0;

	while (p < end) {
		size_t n = diag_utf8_len(p, (size_t)(end - p));

		if (o + (n ? n : 4) + 1 > dst_size)
			break;
		if (n) {
			memcpy(dst + o, p, n);
			o += n;
			p += n;
		} else {
			o += (size_t)snprintf(dst + o, dst_size - o, "\\x%02x", *p++);
		}
	}
	if (dst_size)
		dst[o] = '\0';
	return dst;
}
