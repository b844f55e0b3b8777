/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "session/abi.h"
#include "session/slots.h"

static void test_count_is_checked(void **state)
{
	assert_int_equal(slots_create(0), -EINVAL);
	assert_int_equal(slots_create(SLOTS_MAX + 1), -EINVAL);
}

static void test_size_is_sealed(void **state)
{
	_cleanup_close_ int fd = slots_create(2);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(ftruncate(fd, 1 << 30), -1);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void test_layout(void **state)
{
	_cleanup_close_ int fd = slots_create(3);
	struct slots s;

	assert_int_equal(slots_map(fd, &s, NULL), 0);
	assert_int_equal(s.n, 3);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *request = slots_request(&s, i);
		uint8_t *payload =
			request + sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in);

		assert_int_equal((uintptr_t)payload % SLOT_PAGE, 0);
		assert_true(request >= (uint8_t *)(slots_at(&s, i) + 1));
		assert_int_equal(slots_unique(&s, i), 0);
		/* All of it is there, and nobody else's */
		memset(request, 0xff, SLOT_REQUEST_MAX);
		assert_int_equal(slots_unique(&s, i), UINT64_MAX);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(slots_at(&s, i)->reply_len, 0);
	slots_unmap(&s);
	assert_null(s.base);
	slots_unmap(&s);
}

static void test_two_mappings_are_one_memory(void **state)
{
	_cleanup_close_ int fd = slots_create(1);
	struct fuse_in_header *in;
	struct slots a, b;

	assert_int_equal(slots_map(fd, &a, NULL), 0);
	assert_int_equal(slots_map(fd, &b, NULL), 0);
	in = slots_request(&a, 0);
	in->unique = 77;
	in->opcode = FUSE_READ;
	slots_at(&a, 0)->state = SLOT_DONE;
	slots_unmap(&a);
	assert_int_equal(slots_unique(&b, 0), 77);
	assert_int_equal(slots_opcode(&b, 0), FUSE_READ);
	assert_int_equal(slots_at(&b, 0)->state, SLOT_DONE);
	slots_clear(&b, 0);
	assert_int_equal(slots_unique(&b, 0), 0);
	slots_unmap(&b);
}

static void test_foreign_memory_is_refused(void **state)
{
	_cleanup_close_ int fd = slots_create(2);
	_cleanup_close_ int other = memfd_create("other", MFD_CLOEXEC);
	struct slots s = {};
	struct diag diag = {};
	uint32_t v;

	assert_int_equal(slots_map(other, &s, &diag), -EBADMSG);
	assert_string_not_equal(diag.text, "");
	assert_int_equal(ftruncate(other, SLOTS_HEAD_SIZE + 2 * SLOT_SIZE), 0);
	assert_int_equal(slots_map(other, &s, &diag), -EBADMSG);
	/* a head that speaks of more slots than there is memory */
	v = 3;
	assert_int_equal(pwrite(fd, &v, sizeof(v), offsetof(struct slots_head, n)), sizeof(v));
	assert_int_equal(slots_map(fd, &s, &diag), -EBADMSG);
	v = 99;
	assert_int_equal(pwrite(fd, &v, sizeof(v), offsetof(struct slots_head, version)),
			 sizeof(v));
	assert_int_equal(slots_map(fd, &s, &diag), -EBADMSG);
	assert_null(s.base);
}

static void test_sum(void **state)
{
	_cleanup_close_ int fd = slots_create(2);
	struct slots_sum sum;
	struct slots s;

	assert_int_equal(slots_map(fd, &s, NULL), 0);
	slots_at(&s, 0)->counters.reads = 3;
	slots_at(&s, 1)->counters.reads = 4;
	slots_at(&s, 1)->counters.write_bytes = 1ULL << 40;
	slots_at(&s, 0)->counters.errors = 1;
	slots_sum(&s, &sum);
	assert_int_equal(sum.reads, 7);
	assert_int_equal(sum.write_bytes, 1ULL << 40);
	assert_int_equal(sum.errors, 1);
	assert_int_equal(sum.writes, 0);
	slots_unmap(&s);
}

/* Requests in hand, counters and attributes go over to the larger memory. */
static void test_more_slots(void **state)
{
	_cleanup_close_ int fd = slots_create(2), more = -1;
	struct fuse_in_header *in;
	struct slots s, grown;

	assert_int_equal(slots_map(fd, &s, NULL), 0);
	s.head->attr[1].mode = 0640;
	slots_at(&s, 0)->counters.reads = 3;
	slots_at(&s, 1)->state = SLOT_DONE;
	in = slots_request(&s, 1);
	memset(in, 'x', SLOT_REQUEST_MAX);
	in->unique = 77;
	assert_int_equal(slots_create_from(fd, 1), -EINVAL);
	more = slots_create_from(fd, 5);
	assert_true(more >= 0);
	slots_unmap(&s);

	assert_int_equal(slots_map(more, &grown, NULL), 0);
	assert_int_equal(grown.n, 5);
	assert_int_equal(grown.head->attr[1].mode, 0640);
	assert_int_equal(slots_at(&grown, 0)->counters.reads, 3);
	assert_int_equal(slots_at(&grown, 1)->state, SLOT_DONE);
	in = slots_request(&grown, 1);
	assert_int_equal(in->unique, 77);
	assert_int_equal(((uint8_t *)in)[SLOT_REQUEST_MAX - 1], 'x');
	for (unsigned i = 2; i < 5; i++)
		assert_int_equal(slots_unique(&grown, i), 0);
	slots_unmap(&grown);
}

/* What goes to another layout; whoever wrote it may have been taken over by the image. */
static void test_carried(void **state)
{
	_cleanup_close_ int fd = slots_create(2), new = -1;
	struct slots_carried carried;
	struct slots_names *names;
	struct slots s;

	assert_int_equal(slots_map(fd, &s, NULL), 0);
	assert_true(slots_idle(&s));
	((struct fuse_in_header *)slots_request(&s, 1))->unique = 7;
	assert_false(slots_idle(&s));
	s.head->opened = SLOTS_OPENED_DIRECT;
	s.head->attr[3].mode = 0640;
	memset(s.head->kept, 0xff, SLOTS_KEPT_MAX);
	slots_at(&s, 1)->counters.errors = 4;
	s.head->windows.n = UINT32_MAX;
	s.head->windows.live = UINT32_MAX; /* odd: the second list */
	s.head->windows.windows[SLOTS_WINDOWS_MAX - 1].off = 99;
	names = &s.head->windows.names[1];
	*names = (struct slots_names){.n = UINT32_MAX, .selected = 3};
	for (unsigned i = 0; i < SLOTS_PARTS_MAX; i++)
		names->window[i] = UINT16_MAX;
	names->window[5] = SLOTS_WINDOWS_MAX - 1;
	slots_carry(&s, &carried);
	slots_unmap(&s);

	new = slots_create_carried(&carried, 3);
	assert_int_equal(slots_map(new, &s, NULL), 0);
	assert_true(s.n == 3 && slots_idle(&s));
	assert_int_equal(s.head->opened, SLOTS_OPENED_DIRECT);
	assert_int_equal(s.head->attr[3].mode, 0640);
	assert_int_equal(s.head->kept[SLOTS_KEPT_LOST - 1], 0);
	assert_int_equal(s.head->kept[SLOTS_KEPT_LOST], 0xff);
	assert_int_equal(s.head->kept[SLOTS_KEPT_LOST + 7], 0xff);
	assert_int_equal(s.head->kept[SLOTS_KEPT_LOST + 8], 0);
	assert_int_equal(slots_at(&s, 0)->counters.errors, 4);
	assert_int_equal(s.head->windows.n, SLOTS_WINDOWS_MAX);
	assert_int_equal(s.head->windows.windows[SLOTS_WINDOWS_MAX - 1].off, 99);
	names = &s.head->windows.names[s.head->windows.live];
	assert_int_equal(names->n, 1);
	assert_int_equal(names->window[0], SLOTS_WINDOWS_MAX - 1);
	assert_int_equal(names->selected, 3);
	slots_unmap(&s);
}

static void test_attributes_are_forgotten(void **state)
{
	_cleanup_close_ int fd = slots_create(1);
	struct slots s;

	assert_int_equal(slots_map(fd, &s, NULL), 0);
	s.head->attr[2].set = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_MTIME;
	slots_reset_attr(&s, false, false, false);
	assert_int_equal(s.head->attr[2].set, FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_MTIME);
	slots_reset_attr(&s, true, false, true);
	assert_int_equal(s.head->attr[2].set, FATTR_UID | FATTR_MTIME);
	slots_unmap(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_count_is_checked),
		cmocka_unit_test(test_size_is_sealed),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_two_mappings_are_one_memory),
		cmocka_unit_test(test_foreign_memory_is_refused),
		cmocka_unit_test(test_sum),
		cmocka_unit_test(test_more_slots),
		cmocka_unit_test(test_carried),
		cmocka_unit_test(test_attributes_are_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
