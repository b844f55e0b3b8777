/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cli/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/locate.h"
#include "base/lock.h"
#include "base/parse.h"
#include "cli/metasum.h"
#include "cli/output.h"
#include "cli/saved.h"
#include "image/image.h"

enum {
	CHECK_STATUS_LEAKS = 3,
	CHECK_STATUS_CORRUPT = 4,
	CHECK_FINDINGS_MAX = 100, /* that are told */
	CHECK_PROGRESS_MS = 200,
};

/* A check under way. */
struct run {
	struct check check;
	const struct command *command;
	struct store *store;
	struct saved saved;
	bool in_use;	   /* somebody writes the image meanwhile */
	unsigned findings; /* told, or kept back */
	struct json_object *list;
	bool terminal; /* a person waits */
	bool shown;    /* a progress line stands there */
	struct timespec last;
};

static void check_hide_progress(struct run *run)
{
	if (run->shown)
		fputs("\r\033[K", stderr);
	run->shown = false;
}

static void check_progress(struct check *check, uint64_t done, uint64_t total)
{
	struct run *run = check->data;
	struct timespec now;

	if (!run->terminal)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if ((now.tv_sec - run->last.tv_sec) * 1000 + (now.tv_nsec - run->last.tv_nsec) / 1000000 <
	    CHECK_PROGRESS_MS)
		return;
	run->last = now;
	fprintf(stderr, "\rChecking: %3" PRIu64 " %%", total ? done * 100 / total : 0);
	run->shown = true;
}

static void check_found(struct check *check, bool leak, uint64_t n, const char *text)
{
	struct run *run = check->data;
	struct json_object *o;

	if (run->findings++ >= CHECK_FINDINGS_MAX)
		return;
	if (!run->list) {
		check_hide_progress(run);
		printf("%s: %s\n", leak ? "leak" : "error", text);
		return;
	}
	o = json_object_new_object();
	output_json_add(o, "kind", output_json_string(leak ? "leak" : "corruption"));
	output_json_add(o, "count", json_object_new_uint64(n));
	output_json_add(o, "text", output_json_string(text));
	json_object_array_add(run->list, o);
}

static int check_save(struct check *check, const void *bytes, size_t len, uint64_t off)
{
	struct run *run = check->data;

	return saved_write(&run->saved, bytes, len, off);
}

static int check_save_flush(struct check *check)
{
	struct run *run = check->data;

	return saved_flush(&run->saved);
}

/* The image is ours alone, or (with lock=no, which is for people who know better) is not. */
static int check_lock(struct run *run, int fd, const char *path, bool writable, struct diag *diag)
{
	const struct lock_wait wait = {.seconds = run->command->config.lock_wait};
	struct diag why = {0};

	if (run->command->config.lock)
		return lock_image_wait(fd, path, writable, &wait, diag);
	/* Only to tell: what is read while somebody writes may not fit together */
	if (!writable && lock_image(fd, path, false, &why) == -EBUSY) {
		run->in_use = true;
		fprintf(stderr, "fuseimg: %s\nfuseimg: What is found may therefore be wrong\n",
			why.text);
	}
	return 0;
}

/* A repair is of no use without writing: the sentence for an export says how to do without. */
static int check_open_image(const char *word, bool writable, int *ret_fd, char **ret_path,
			    struct diag *diag)
{
	int fd, r = locate_open_image(word, &(struct locate_how){.writable = writable}, ret_fd,
				      ret_path, diag);

	if (!writable || (r != -EROFS && r != -EACCES && r != -EPERM) ||
	    locate_open_image(word, &(struct locate_how){}, &fd, ret_path, NULL) < 0)
		return r;
	close(fd);
	return diag_errno(diag, r, "%s can be read, and checked, but not written", *ret_path);
}

static int check_open(struct run *run, bool writable, struct diag *diag)
{
	_cleanup_free_ char *path = NULL;
	int fd, r;

	r = check_open_image(run->command->words[0], writable, &fd, &path, diag);
	if (r < 0)
		return r;
	r = check_lock(run, fd, path, writable, diag);
	if (r < 0) {
		close(fd);
		return r;
	}
	return store_file_new(fd, path, &run->store, diag);
}

static int check_status(const struct check *check)
{
	return check->corruptions ? CHECK_STATUS_CORRUPT : check->leaks ? CHECK_STATUS_LEAKS : 0;
}

static void check_text_counts(const struct run *run)
{
	const struct check *c = &run->check;

	if (run->findings > CHECK_FINDINGS_MAX)
		printf("... and %u more\n", run->findings - CHECK_FINDINGS_MAX);
	if (c->corruptions_fixed || c->leaks_fixed)
		printf("Repaired: %" PRIu64 " errors, %" PRIu64 " leaked clusters\n",
		       c->corruptions_fixed, c->leaks_fixed);
	if (run->saved.path) {
		fputs("What was overwritten is saved in ", stdout);
		output_name(run->saved.path);
		putchar('\n');
	}
	if (c->corruptions)
		printf("%" PRIu64 " errors: the image is corrupt\n", c->corruptions);
	if (c->leaks) {
		printf("%" PRIu64 " leaked clusters, which do no harm but take up to ", c->leaks);
		output_size(c->leaks * c->unit);
		putchar('\n');
	}
	if (!c->corruptions && !c->leaks)
		printf("No errors%s\n", c->corruptions_fixed || c->leaks_fixed ? " any more" : "");
}

static double check_percent(uint64_t part, uint64_t whole)
{
	return whole ? (double)part * 100 / (double)whole : 0;
}

static void check_text_figures(const struct check *c)
{
	printf("%" PRIu64 " of %" PRIu64 " clusters are allocated (%.1f %%), %.1f %% of these "
	       "fragmented, %.1f %% compressed\n",
	       c->allocated, c->total, check_percent(c->allocated, c->total),
	       check_percent(c->fragmented, c->allocated), check_percent(c->packed, c->allocated));
	fputs("The image ends at ", stdout);
	output_size(c->end);
	putchar('\n');
}

/* The last line: what to do now. */
static void check_text_advice(const struct run *run)
{
	const struct check *c = &run->check;
	const char *name = run->store->name;

	if (run->in_use)
		printf("The image is in use: check again when it is not\n");
	else if (c->corruptions && c->repair == CHECK_REPAIR_ALL)
		printf("What is left cannot be repaired: save what can be read, with fuseimg mount "
		       "-o ro or qemu-img convert\n");
	else if (c->kept_leaks && c->repair == CHECK_REPAIR_LEAKS)
		printf("Leaks were left alone, since damaged tables may need them\n");
	if (c->corruptions && c->repair != CHECK_REPAIR_ALL && !run->in_use) {
		fputs("To repair all of it (a copy of the image first is wise): fuseimg check "
		      "--repair=all ",
		      stdout);
		output_name(name);
		putchar('\n');
	} else if (c->leaks && c->repair == CHECK_ONLY && !run->in_use) {
		fputs("To give the space back: fuseimg check --repair=leaks ", stdout);
		output_name(name);
		putchar('\n');
	} else if (c->marked_dirty || c->marked_corrupt) {
		printf("The image is marked %s; fuseimg check --repair takes the mark away\n",
		       c->marked_corrupt ? "corrupt" : "as not closed cleanly");
	}
}

/* Names as in qemu-img check where the meaning is the same. */
static void check_json(struct run *run)
{
	_cleanup_json_ struct json_object *o = json_object_new_object();
	const struct check *c = &run->check;
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {
		{"check-errors", 0},
		{"corruptions", c->corruptions},
		{"leaks", c->leaks},
		{"corruptions-fixed", c->corruptions_fixed},
		{"leaks-fixed", c->leaks_fixed},
		{"image-end-offset", c->end},
		{"total-clusters", c->total},
		{"allocated-clusters", c->allocated},
		{"fragmented-clusters", c->fragmented},
		{"compressed-clusters", c->packed},
	};

	output_json_add(o, "filename", output_json_string(run->store->name));
	output_json_add(o, "format", output_json_string(c->format));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		output_json_add(o, numbers[i].key, json_object_new_uint64(numbers[i].value));
	output_json_add(o, "dirty", json_object_new_boolean(c->marked_dirty));
	output_json_add(o, "corrupt", json_object_new_boolean(c->marked_corrupt));
	output_json_add(o, "in-use", json_object_new_boolean(run->in_use));
	output_json_add(o, "saved", output_json_string(run->saved.path));
	output_json_add(o, "findings", TAKE_PTR(run->list));
	output_json(o, true);
}

static int check_run(struct run *run, struct diag *diag)
{
	const struct command *command = run->command;
	bool writable = command->repair != CHECK_ONLY;
	uint64_t size;
	int r = check_open(run, writable, diag);

	if (r == 0)
		r = store_size(run->store, &size);
	if (r < 0)
		return r;
	saved_init(&run->saved, run->store->name, command->save_dir, size, diag);
	run->check = (struct check){
		.repair = command->repair,
		.data = run,
		.found = check_found,
		.progress = check_progress,
		.save = check_save,
		.save_flush = check_save_flush,
	};
	if (command->json)
		run->list = json_object_new_array();
	r = image_check(run->store, command->config.format, &run->check, diag);
	check_hide_progress(run);
	return r;
}

/* The image as it is now. */
static int check_take_seal(struct run *run, uint64_t before, struct saved_seal *ret,
			   struct diag *diag)
{
	const struct check show = {.data = run, .progress = check_progress};
	struct saved_seal seal = {.before = before};
	int r = store_size(run->store, &seal.size);

	if (r < 0)
		return diag_errno(diag, r, "%s", run->store->name);
	r = metasum_take(run->store, run->command->config.format, before, &show, &seal.sum, diag);
	check_hide_progress(run);
	if (r == 0)
		*ret = seal;
	return r;
}

/* Also after a repair that has failed half-way. One that is done is none the worse without. */
static void check_seal(struct run *run)
{
	struct diag diag = {0};
	struct saved_seal seal;
	int r;

	if (!run->saved.path)
		return;
	r = check_take_seal(run, run->saved.image_size, &seal, &diag);
	if (r == 0) {
		run->saved.diag = &diag;
		r = saved_put_seal(&run->saved, &seal);
	}
	if (r < 0)
		fprintf(stderr, "fuseimg: the repair cannot be undone: %s\n", diag.text);
}

static int check_undo_refused(const struct run *run, const char *how, struct diag *diag)
{
	return diag_set(diag, -EUCLEAN,
			"%s: %s since the repair of which %s is, or it is another image; nothing "
			"was changed",
			run->store->name, how, run->command->undo);
}

static int check_undo(struct run *run, struct diag *diag)
{
	const char *path = run->command->undo;
	struct saved_seal then, now;
	int r = check_open(run, true, diag);

	if (r == 0)
		r = saved_read_seal(path, &then, diag);
	if (r == 0)
		r = check_take_seal(run, then.before, &now, diag);
	if (r < 0)
		return r;
	if (now.size != then.size)
		return check_undo_refused(run, "its size has changed", diag);
	if (now.sum != then.sum)
		return check_undo_refused(run, "it has been written to", diag);
	return saved_undo(path, run->store, diag);
}

int verb_check(struct command *c, struct diag *diag)
{
	struct run run = {.command = c, .terminal = isatty(STDERR_FILENO) == 1, .saved.fd = -1};
	int r;

	if (c->undo && c->repair != CHECK_ONLY) {
		c->status = COMMAND_EXIT_CONFIG;
		return diag_set(diag, -EINVAL, "--undo and --repair exclude each other");
	}
	r = c->undo ? check_undo(&run, diag) : check_run(&run, diag);

	check_seal(&run);
	if (r == 0 && !c->undo) {
		c->status = check_status(&run.check);
		if (c->json) {
			check_json(&run);
		} else {
			check_text_counts(&run);
			check_text_figures(&run.check);
			check_text_advice(&run);
		}
	}
	json_putp(&run.list);
	saved_done(&run.saved);
	store_close(run.store);
	return r;
}
