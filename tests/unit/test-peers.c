/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "nbd/peers.h"
#include "tests/lib/unit.h"

static struct error err;
static int fd;

static int leave_two(void *opaque)
{
	int a, b, c;

	must(peers_use(fd, &err), err);
	must(peers_add("pid 1 since 5", &a, &err), err);
	must(peers_add("address 192.0.2.7", &b, &err), err);
	must(peers_add("pid 2 since 6", &c, &err), err);
	ck_assert_int_ne(a, b);
	peers_drop(a);
	/* Who is here now has lost nothing. */
	ck_assert(!peers_has_lost("address 192.0.2.7"));
	return 0;
}

static int find_two(void *opaque)
{
	int slot;

	must(peers_use(fd, &err), err);
	ck_assert(!peers_has_lost("pid 1 since 5"));
	ck_assert(peers_has_lost("address 192.0.2.7"));
	ck_assert(!peers_has_lost("address 192.0.2.70"));
	ck_assert(peers_has_lost("pid 2 since 6"));
	ck_assert(!peers_has_lost("pid 2 since 7"));
	must(peers_add("pid 1 since 5", &slot, &err), err);
	peers_drop(slot);
	return 0;
}

START_TEST(what_a_server_leaves_the_next_one_finds)
{
	unsigned int i;

	fd = open(unit_path("peers"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	unit_in_child(leave_two, NULL);
	for (i = 0; i < 3; i++)
		unit_in_child(find_two, NULL);
	close(fd);
}
END_TEST

START_TEST(without_a_file_nobody_is_refused)
{
	int slot;

	must(peers_use(-1, &err), err);
	must(peers_add("pid 1", &slot, &err), err);
	ck_assert_int_eq(slot, -1);
	peers_drop(slot);
	ck_assert(!peers_has_lost("pid 1"));
}
END_TEST

START_TEST(there_are_not_too_many)
{
	unsigned int i;
	int slot;

	fd = open(unit_path("many"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(peers_use(fd, &err), err);
	for (i = 0; i < PEERS_MAX; i++)
		must(peers_add("somebody", &slot, &err), err);
	ck_assert_int_eq(peers_add("one more", &slot, &err), -ENOSPC);
	error_clear(&err);
	peers_drop(7);
	must(peers_add("one more", &slot, &err), err);
	ck_assert_int_eq(slot, 7);
	close(fd);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_a_server_leaves_the_next_one_finds);
	tcase_add_test(tc, without_a_file_nobody_is_refused);
	tcase_add_test(tc, there_are_not_too_many);
}

int main(void)
{
	return unit_main("peers", add);
}
