/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Runs a fuzzer's function over files: FUZZER DIRECTORY... For builds without libFuzzer, where each
 * fuzzer is a plain test over its corpus. */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "fuzz.h"

static int main_run_file(int dir_fd, const char *name)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	int r = io_read_file(dir_fd, name, FUZZ_STORE_MAX, &data, &size);

	if (r < 0)
		return r;
	return LLVMFuzzerTestOneInput((const uint8_t *)data, size);
}

/* How many files were run, or -1. */
static int main_run_directory(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	int n = 0;

	while (dir && n >= 0 && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			n = main_run_file(dirfd(dir), e->d_name) < 0 ? -1 : n + 1;
	if (!dir)
		return -1;
	closedir(dir);
	return n;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int n = main_run_directory(argv[i]);

		if (n <= 0) {
			fprintf(stderr, "%s: %s: no files could be run\n", argv[0], argv[i]);
			return 1;
		}
		printf("%s: %d files\n", argv[i], n);
	}
	return argc < 2;
}
