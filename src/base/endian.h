/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_ENDIAN_H
#define FUSEIMG_ENDIAN_H

/* Unaligned loads and stores in the byte order of the name. */

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define DEFINE_ENDIAN_(order, bits)                                                                \
	static inline uint##bits##_t order##bits##_get(const void *p)                              \
	{                                                                                          \
		uint##bits##_t v;                                                                  \
		memcpy(&v, p, sizeof(v));                                                          \
		return order##bits##toh(v);                                                        \
	}                                                                                          \
	static inline void order##bits##_put(void *p, uint##bits##_t v)                            \
	{                                                                                          \
		v = hto##order##bits(v);                                                           \
		memcpy(p, &v, sizeof(v));                                                          \
	}

DEFINE_ENDIAN_(be, 16)
DEFINE_ENDIAN_(be, 32)
DEFINE_ENDIAN_(be, 64)
DEFINE_ENDIAN_(le, 16)
DEFINE_ENDIAN_(le, 32)
DEFINE_ENDIAN_(le, 64)

#undef DEFINE_ENDIAN_

#endif
