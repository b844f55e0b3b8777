/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The images that are proved safe: every feature that decides where something is written, and some
 * of their combinations. The disk ends inside a cluster, and inside no sector. */

#include "base/checked.h"
#include "stack.h"

#define SIZE "1050112" /* KIND_SIZE */
#define NEW(options) "qemu-img create -q -f qcow2 -o " options " img " SIZE "; "
/* Text in the first half, nothing in the second */
#define RAW "seq 1 100000 >raw; truncate -s " SIZE " raw; "
#define FULL(options) RAW "qemu-img convert -f raw -O qcow2 -o " options " raw img; "
#define PACKED(options) RAW "qemu-img convert -c -f raw -O qcow2 -o " options " raw img; "
#define SNAPSHOT(name) "qemu-img snapshot -c " name " img; "
#define CHANGE                                                                                     \
	"qemu-io -c 'write -P 7 100k 150k' -c 'write -z 300k 90k' -c 'discard 450k 64k' "          \
	"-c 'write -P 9 900k 30k' img >/dev/null; "
/* Both say what format the file below them has */
#define BASE(size) "seq 1 100000 >base; truncate -s " size " base; "
#define OVER(options) "qemu-img create -q -f qcow2 -b base -F raw -o " options " img " SIZE "; "

const struct kind kinds[] = {
	{"512", NEW("cluster_size=512"), KIND_QUICK},
	{"512 wide", FULL("cluster_size=512,refcount_bits=64"), KIND_QUICK},
	{"512 narrow", FULL("cluster_size=512,refcount_bits=1")},
	/* What is behind the L1 table's end in its cluster is nobody's business but who grows it */
	{"512 with a rest",
	 NEW("cluster_size=512") "l1=$(od -An -tu8 --endian=big -j40 -N8 img); "
				 "yes | head -c 248 | dd of=img bs=1 seek=$((l1 + 264)) "
				 "conv=notrunc status=none; ",
	 KIND_QUICK},
	/* The first refcount block is nearly used up: a batch begins in it and ends in a new one */
	{"4k block's end",
	 "qemu-img create -q -f qcow2 -o cluster_size=4k img 11M; "
	 "qemu-io -c 'write -P 5 2700k 8100k' img >/dev/null; ",
	 KIND_FIXED_SIZE | KIND_QUICK},
	{"1k 8 bits", NEW("cluster_size=1k,refcount_bits=8") CHANGE},
	{"4k", FULL("cluster_size=4k") CHANGE, KIND_QUICK},
	{"64k", NEW("cluster_size=64k"), KIND_QUICK},
	{"64k 1 bit", NEW("refcount_bits=1") CHANGE},
	{"2M", FULL("cluster_size=2M")},
	{"preallocated", NEW("preallocation=metadata,cluster_size=4k")},
	{"v2", NEW("compat=0.10") CHANGE, KIND_QUICK},
	{"v2 512", FULL("compat=0.10,cluster_size=512")},
	{"v2 backing", BASE("700000") OVER("compat=0.10,cluster_size=4k")},
	{"v2 snapshot", FULL("compat=0.10,cluster_size=4k") SNAPSHOT("one"), KIND_FIXED_SIZE},
	{"subclusters", NEW("extended_l2=on,cluster_size=16k") CHANGE, KIND_QUICK},
	{"subclusters 128k", NEW("extended_l2=on,cluster_size=128k") CHANGE},
	{"packed", PACKED("cluster_size=4k"), KIND_QUICK},
	{"packed zstd", PACKED("compression_type=zstd") CHANGE},
	{"packed subclusters", PACKED("extended_l2=on,cluster_size=16k")},
	{"snapshot 512", FULL("cluster_size=512") SNAPSHOT("one"), KIND_QUICK},
	{"snapshot 4k", FULL("cluster_size=4k") SNAPSHOT("one") CHANGE SNAPSHOT("two") CHANGE},
	{"snapshot 64k", FULL("cluster_size=64k") SNAPSHOT("one") CHANGE},
	{"snapshot subclusters", FULL("extended_l2=on,cluster_size=16k") SNAPSHOT("one") CHANGE,
	 KIND_QUICK},
	{"snapshot packed", PACKED("cluster_size=4k") SNAPSHOT("one") CHANGE},
	{"snapshot 1 bit", FULL("cluster_size=4k,refcount_bits=2") SNAPSHOT("one")},
	{"backing", BASE("700000") OVER("cluster_size=4k") CHANGE, KIND_QUICK},
	{"backing longer", BASE("2M") OVER("cluster_size=64k")},
	{"backing subclusters", BASE("2M") OVER("extended_l2=on,cluster_size=16k") CHANGE,
	 KIND_QUICK},
	{"backing chain",
	 "seq 1 100000 >base2; truncate -s 500000 base2; "
	 "qemu-img create -q -f qcow2 -b base2 -F raw -o cluster_size=4k base 900000; "
	 "qemu-io -c 'write -P 3 200k 100k' -c 'write -z 50k 70k' base >/dev/null; "
	 "qemu-img create -q -f qcow2 -b base -F qcow2 -o cluster_size=64k img " SIZE
	 "; " CHANGE SNAPSHOT("one")},
	{"data file", NEW("data_file=img.data,cluster_size=4k") CHANGE, KIND_QUICK},
	{"data file 64k", NEW("data_file=img.data")},
	{"data file raw", NEW("data_file=img.data,data_file_raw=on") CHANGE, KIND_QUICK},
	{"data file subclusters", NEW("data_file=img.data,extended_l2=on,cluster_size=16k") CHANGE},
	{"data file short",
	 NEW("data_file=img.data,cluster_size=4k") "truncate -s 10000 img.data; "},
	{"data file backing", BASE("2M") OVER("data_file=img.data,cluster_size=4k") CHANGE},
	{"dirty",
	 NEW("lazy_refcounts=on,cluster_size=4k") "(qemu-io -c 'write -P 1 100k 300k' -c flush "
						  "-c abort img || true) >/dev/null 2>&1; ",
	 KIND_DIRTY | KIND_QUICK},
	{"dirty snapshot",
	 FULL("lazy_refcounts=on,cluster_size=512") SNAPSHOT(
		 "one") "(qemu-io -c 'write -P 1 100k 300k' -c flush -c abort img || true) "
			">/dev/null 2>&1; ",
	 KIND_DIRTY},
	{"bitmap",
	 FULL("cluster_size=4k") "qemu-img bitmap --add img b; "
				 "qemu-img bitmap --add --disable img c; " CHANGE,
	 KIND_BITMAP | KIND_QUICK},
	{"device", NEW("cluster_size=4k") CHANGE, KIND_DEVICE | KIND_QUICK},
	{"device subclusters", NEW("extended_l2=on,cluster_size=16k"), KIND_DEVICE | KIND_QUICK},
	{"device snapshot", FULL("cluster_size=64k") SNAPSHOT("one"), KIND_DEVICE},
};

const size_t n_kinds = ARRAY_SIZE(kinds);
