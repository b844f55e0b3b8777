/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/selector.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "base/parse.h"

/*
 * Types of the Discoverable Partitions Specification (uapi-group.org). Those of root and usr are of
 * this architecture.
 */
#if defined(__x86_64__)
#define SELECTOR_ROOT "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
#define SELECTOR_USR "8484680c-9521-48c6-9c11-b0720656f69e"
#elif defined(__i386__)
#define SELECTOR_ROOT "44479540-f297-41b2-9af7-d131d5f0458a"
#define SELECTOR_USR "75250d76-8cc6-458e-bd66-bd47cc81a812"
#elif defined(__aarch64__)
#define SELECTOR_ROOT "b921b045-1df0-41c3-af44-4c6f280d3fae"
#define SELECTOR_USR "b0e01050-ee5f-4390-949a-9101b17104e9"
#elif defined(__arm__)
#define SELECTOR_ROOT "69dad710-2ce4-4e3c-b16c-21a1d49abed3"
#define SELECTOR_USR "7d0359a3-02b3-4f0a-865c-654403e70625"
#elif defined(__riscv) && __riscv_xlen == 64
#define SELECTOR_ROOT "72ec70a6-cf74-40e6-bd49-4bda08e8f224"
#define SELECTOR_USR "beaec34b-8442-439b-a40b-984381ed097d"
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SELECTOR_ROOT "c31c45e6-3f39-412e-80fb-4809c4980599"
#define SELECTOR_USR "15bb03af-77e7-4d4a-b12b-c0d084f7491c"
#elif defined(__s390x__)
#define SELECTOR_ROOT "5eead9a9-fe09-4a1e-a1d7-520d00531306"
#define SELECTOR_USR "8a4f5770-50aa-4ed3-874a-99b710db6fea"
#elif defined(__loongarch_lp64)
#define SELECTOR_ROOT "77055800-792c-4f94-b39a-98c91b762bb6"
#define SELECTOR_USR "e611c702-575c-4cbe-9a46-434fa0bf7e3f"
#endif

static const struct selector_type {
	const char *name, *uuid;
} selector_types[] = {
#ifdef SELECTOR_ROOT
	{"root", SELECTOR_ROOT},
	{"usr", SELECTOR_USR},
#endif
	{"home", "933ac7e1-2eb4-4f13-b844-0e14e2aef915"},
	{"srv", "3b8f8425-20e0-4f3b-907f-1a25a76f98e8"},
	{"var", "4d21b016-b534-45c2-a9fb-5c16e091fd2d"},
	{"tmp", "7ec6f557-3bc5-4aca-b293-16ef5df639d1"},
	{"esp", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"},
	{"xbootldr", "bc13c2ff-59e6-4262-a352-b275fd6f7172"},
	{"swap", "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"},
};

static const struct selector_tag {
	const char *prefix;
	enum selector_kind kind;
} selector_tags[] = {
	{"LABEL=", SELECTOR_LABEL},	    {"UUID=", SELECTOR_UUID},
	{"PARTLABEL=", SELECTOR_PARTLABEL}, {"PARTUUID=", SELECTOR_PARTUUID},
	{"TYPE=", SELECTOR_TYPE},
};

static const char *selector_type(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(selector_types); i++)
		if (strcmp(selector_types[i].name, name) == 0)
			return selector_types[i].uuid;
	return NULL;
}

static int selector_number(const char *text, struct selector *ret)
{
	const char *digits = strncmp(text, "part", 4) == 0 ? text + 4 : text;
	uint64_t number;

	if (parse_u64(digits, SELECTOR_NUMBER_MAX, &number) < 0 || number == 0)
		return -EINVAL;
	*ret = (struct selector){.kind = SELECTOR_NUMBER, .number = (unsigned)number};
	return 0;
}

static int selector_value(enum selector_kind kind, const char *value, struct selector *ret)
{
	if (kind == SELECTOR_TYPE)
		value = selector_type(value) ?: value;
	if (!*value || strlen(value) >= sizeof(ret->value))
		return -EINVAL;
	*ret = (struct selector){.kind = kind};
	strcpy(ret->value, value);
	return 0;
}

int selector_parse(const char *text, struct selector *ret)
{
	const char *type = selector_type(text);

	if (type)
		return selector_value(SELECTOR_TYPE, type, ret);
	for (size_t i = 0; i < ARRAY_SIZE(selector_tags); i++) {
		size_t n = strlen(selector_tags[i].prefix);

		if (strncasecmp(text, selector_tags[i].prefix, n) == 0)
			return selector_value(selector_tags[i].kind, text + n, ret);
	}
	return selector_number(text, ret);
}
