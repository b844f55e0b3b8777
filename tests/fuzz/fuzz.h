/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FUSEIMG_FUZZ_H
#define FUSEIMG_FUZZ_H

/*
 * What the fuzzers have in common. Each is one LLVMFuzzerTestOneInput(): linked with libFuzzer
 * (clang, -Dfuzzers=true) it searches, linked with main.c it runs over the files that it is given.
 *
 * The input is an image in memory. Nothing may crash, hang, or take memory out of proportion, and
 * what is clean to begin with must stay so.
 */

#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

enum {
	FUZZ_STORE_MAX = 8 << 20, /* a store grows no further: -ENOSPC */
	FUZZ_PIECE = 64 << 10,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Aborts with a message where a promise is broken. */
void fuzz_must(bool kept, const char *promise);

/* A copy of the input that can grow to FUZZ_STORE_MAX. */
struct store *fuzz_store(const uint8_t *data, size_t size);

/* Guest offsets worth a look: the beginning, the end, and in between by the input. i counts up. */
uint64_t fuzz_offset(uint64_t size, uint64_t seed, unsigned i);

/* A number that depends on all of the input. */
uint64_t fuzz_seed(const uint8_t *data, size_t size);

/* Opens what an image names: a small disk for a backing image, an empty store for a data file. */
extern struct image_opener fuzz_opener;

/* Opens as an image; NULL where it is refused. Image or not, a refusal says why, and an image that
 * names other files is refused where there is no opener. Takes over the store. */
struct image *fuzz_open(struct store *store, const struct image_options *options);

/* A store in front of another one, which stays when image_close() takes this one along. Lives in
 * the caller's memory. */
struct fuzz_window {
	struct store store;
	struct store *inner;
};
void fuzz_window_init(struct fuzz_window *w, struct store *inner);

/* A number that depends on what the internal snapshots of an image read as. */
uint64_t fuzz_snapshots(const struct image_options *options, struct store *store);

/* Checks the store; true where nothing at all is wrong. ret may be NULL. */
bool fuzz_clean(struct store *store, enum check_repair repair, struct check *ret);

#endif
