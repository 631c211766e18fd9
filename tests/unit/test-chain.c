/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/chain.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

#define BITS	12U
#define CLUSTER (1U << BITS)

static struct error err;
static struct open_options options;

static void write_qcow2(const char *name, uint64_t size, const char *backing,
			const char *format, unsigned int data_idx)
{
	uint8_t data[CLUSTER];
	struct qb q;

	qb_init(&q, size, BITS, backing, format);
	unit_fill(data, sizeof(data), data_idx);
	if (data_idx != UINT32_MAX)
		qb_data(&q, data_idx, data);
	unit_write(unit_path("%s", name), q.buf, q.len);
	qb_done(&q);
}

static int open_chain(const char *name, struct chain *c)
{
	error_clear(&err);
	return chain_open(unit_path("%s", name), &options, c, &err);
}

/* n0 -> n1 -> ... -> n(@depth - 1); the last has data in cluster 0. */
static void write_deep(unsigned int depth)
{
	char name[16], backing[16];
	unsigned int i;

	for (i = 0; i < depth; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		snprintf(backing, sizeof(backing), "n%u", i + 1);
		if (i + 1 < depth)
			write_qcow2(name, CLUSTER, backing, "qcow2",
				    UINT32_MAX);
		else
			write_qcow2(name, CLUSTER, NULL, NULL, 0);
	}
}

START_TEST(chains_go_256_deep_and_no_deeper)
{
	struct chain c = { 0 };
	struct extent e;

	write_deep(256);
	must(open_chain("n0", &c), err);
	ck_assert_uint_eq(c.depth, 256);
	must(chain_map(&c, 5, 100, &e, &err), err);
	ck_assert_int_eq(e.kind, EXTENT_DATA);
	ck_assert_uint_eq(e.depth, 255);
	chain_done(&c);
	write_deep(257);
	ck_assert_int_eq(open_chain("n0", &c), -EFBIG);
	unit_says(&err, "256");
	ck_assert_uint_eq(c.depth, 0);
}
END_TEST

START_TEST(a_refused_chain_leaves_nothing_open)
{
	unsigned int before = unit_open_fds();
	struct chain c = { 0 };

	write_deep(40);
	ck_assert_int_eq(unlink(unit_path("n39")), 0);
	ck_assert_int_eq(open_chain("n0", &c), -ENOENT);
	unit_says(&err, "n38: ");
	unit_says(&err, "\"n39\"");
	ck_assert_uint_eq(unit_open_fds(), before);
}
END_TEST

START_TEST(a_loop_is_found_whatever_it_is_called)
{
	struct chain c = { 0 };

	write_qcow2("self", CLUSTER, "self", "qcow2", 0);
	ck_assert_int_eq(open_chain("self", &c), -EBADMSG);
	unit_says(&err, "its own backing file");
	write_qcow2("one", CLUSTER, "two", "qcow2", 0);
	write_qcow2("two", CLUSTER, "one", "qcow2", 0);
	ck_assert_int_eq(open_chain("one", &c), -EBADMSG);
	unit_says(&err, "its own backing file");
	/* The same file under a name that nothing compares equal. */
	write_qcow2("hard", CLUSTER, "link", "qcow2", 0);
	ck_assert_int_eq(link(unit_path("hard"), unit_path("link")), 0);
	ck_assert_int_eq(open_chain("hard", &c), -EBADMSG);
	unit_says(&err, "its own backing file");
	write_qcow2("soft", CLUSTER, "slink", "qcow2", 0);
	ck_assert_int_eq(symlink("soft", unit_path("slink")), 0);
	ck_assert_int_eq(open_chain("soft", &c), -EBADMSG);
}
END_TEST

/* Sizes in clusters, top first; what answers for clusters 0 to 5. */
static const struct {
	unsigned int size[3];
	unsigned int data[3]; /* the cluster that has data; 99: none */
	const char *expect; /* a digit: data at that depth; a letter: no layer
			       has it, down to depth a = 0, b = 1, c = 2 */
} lengths[] = {
	{ { 6, 3, 6 }, { 99, 99, 1 }, "c2caaa" }, /* long, short, long */
	{ { 6, 3, 6 }, { 99, 99, 4 }, "cccaaa" }, /* hidden by the end */
	{ { 6, 3, 6 }, { 4, 99, 4 }, "ccca0a" },
	{ { 6, 6, 3 }, { 99, 99, 1 }, "c2cbbb" },
	{ { 6, 6, 3 }, { 99, 5, 2 }, "cc2bb1" },
	{ { 3, 6, 6 }, { 99, 1, 99 }, "c1c" }, /* overlay shorter */
	{ { 3, 6, 6 }, { 99, 5, 99 }, "ccc" },
	{ { 6, 6, 6 }, { 0, 0, 0 }, "0ccccc" },
	{ { 6, 6, 6 }, { 0, 1, 2 }, "012ccc" },
};

START_TEST(layers_of_other_lengths_end_in_zeroes)
{
	static const char *const names[] = { "l0", "l1", "l2", NULL };
	const char *expect = lengths[_i].expect;
	struct chain c = { 0 };
	struct extent e;
	unsigned int i;

	for (i = 0; i < 3; i++)
		write_qcow2(names[i], lengths[_i].size[i] * CLUSTER,
			    names[i + 1], names[i + 1] ? "qcow2" : NULL,
			    lengths[_i].data[i] == 99 ? UINT32_MAX
						      : lengths[_i].data[i]);
	must(open_chain("l0", &c), err);
	ck_assert_uint_eq(c.bytes, strlen(expect) * CLUSTER);
	for (i = 0; expect[i]; i++) {
		must(chain_map(&c, i * CLUSTER + 7, CLUSTER - 7, &e, &err),
		     err);
		ck_assert_uint_eq(e.len, CLUSTER - 7);
		if (expect[i] >= 'a') {
			ck_assert_int_eq(e.kind, EXTENT_ZERO);
			ck_assert(e.absent);
			ck_assert_int_eq(e.depth, expect[i] - 'a');
		} else {
			ck_assert_int_eq(e.kind, EXTENT_DATA);
			ck_assert_int_eq(e.depth, expect[i] - '0');
			ck_assert_ptr_eq(e.src, c.layers[e.depth]->src);
		}
	}
	chain_done(&c);
}
END_TEST

START_TEST(a_zero_cluster_hides_what_is_below)
{
	struct chain c = { 0 };
	struct extent e;
	struct qb q;

	write_qcow2("below", 2 * CLUSTER, NULL, NULL, 1);
	qb_init(&q, 2 * CLUSTER, BITS, "below", "qcow2");
	qb_entry(&q, 1, QB_ZERO);
	unit_write(unit_path("zero"), q.buf, q.len);
	qb_done(&q);
	must(open_chain("zero", &c), err);
	must(chain_map(&c, CLUSTER, CLUSTER, &e, &err), err);
	ck_assert(e.kind == EXTENT_ZERO && !e.absent && e.depth == 0);
	chain_done(&c);
}
END_TEST

START_TEST(a_guessed_lower_layer_refers_to_nothing)
{
	struct chain c = { 0 };

	write_qcow2("g2", CLUSTER, NULL, NULL, 0);
	write_qcow2("g1", CLUSTER, "g2", "qcow2", 0);
	write_qcow2("g0", CLUSTER, "g1", NULL, 0);
	/* The top may be guessed, and one guessed layer may end the chain. */
	must(open_chain("g1", &c), err);
	chain_done(&c);
	ck_assert_int_eq(open_chain("g0", &c), -EPERM);
	unit_says(&err, "allow=guessed");
	unit_says(&err, "g1");
	options.allow.guessed = true;
	must(open_chain("g0", &c), err);
	ck_assert_uint_eq(c.depth, 3);
	ck_assert(c.layers[1]->guessed && !c.layers[2]->guessed);
	chain_done(&c);
	options.allow.guessed = false;
	write_qcow2("g0", CLUSTER, "g2", NULL, 0);
	must(open_chain("g0", &c), err);
	ck_assert(c.layers[1]->guessed);
	chain_done(&c);
}
END_TEST

START_TEST(a_declared_format_is_the_one_that_is_used)
{
	struct chain c = { 0 };
	struct extent e;

	/* A machine wrote a qcow2 header into its raw disk. */
	write_qcow2("guest", CLUSTER, "/etc/passwd", "raw", 0);
	write_qcow2("over", CLUSTER, "guest", "raw", UINT32_MAX);
	must(open_chain("over", &c), err);
	ck_assert_uint_eq(c.depth, 2);
	must(chain_map(&c, 0, 4, &e, &err), err);
	ck_assert(e.kind == EXTENT_DATA && e.host_off == 0 && e.depth == 1);
	chain_done(&c);
	/* Declared what it is not. */
	unit_write(unit_path("plain"), "just bytes", 10);
	write_qcow2("over", CLUSTER, "plain", "qcow2", UINT32_MAX);
	ck_assert_int_eq(open_chain("over", &c), -EBADMSG);
	unit_says(&err, "qcow2");
	write_qcow2("over", CLUSTER, "plain", "vmdk9", UINT32_MAX);
	ck_assert_int_eq(open_chain("over", &c), -ENOTSUP);
	unit_says(&err, "vmdk9");
	/* So is the top's. */
	options.format = "raw";
	must(open_chain("over", &c), err);
	ck_assert_uint_eq(c.depth, 1);
	chain_done(&c);
	options.format = "qcow2";
	ck_assert_int_eq(open_chain("plain", &c), -EBADMSG);
	options.format = NULL;
}
END_TEST

START_TEST(names_are_relative_to_the_image_that_holds_them)
{
	struct chain c = { 0 };

	mkdir(unit_path("a"), 0700);
	mkdir(unit_path("a/b"), 0700);
	write_qcow2("a/top", CLUSTER, "b/mid", "qcow2", UINT32_MAX);
	write_qcow2("a/b/mid", CLUSTER, "low", "qcow2", UINT32_MAX);
	write_qcow2("a/b/low", CLUSTER, NULL, NULL, 0);
	write_qcow2("low", CLUSTER, "/etc/passwd", "raw", 0);
	ck_assert_int_eq(chdir(unit_path(".")), 0);
	must(open_chain("a/top", &c), err);
	ck_assert_uint_eq(c.depth, 3);
	chain_done(&c);
	/* Each layer is confined to its own folder, not to the top's. */
	write_qcow2("a/b/mid", CLUSTER, "../low2", "qcow2", UINT32_MAX);
	write_qcow2("a/low2", CLUSTER, NULL, NULL, 0);
	ck_assert_int_eq(open_chain("a/top", &c), -EPERM);
	unit_says(&err, "outside");
	ck_assert_int_eq(open_chain("low", &c), -EPERM);
}
END_TEST

START_TEST(pseudo_names_are_opened_when_they_are_permitted)
{
	struct chain c = { 0 };

	write_qcow2("jb", CLUSTER, NULL, NULL, 0);
	write_qcow2("jt", CLUSTER,
		    "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
		    "\"filename\":\"jb\"}}",
		    NULL, UINT32_MAX);
	write_qcow2("jw", CLUSTER,
		    "json:{\"driver\":\"raw\",\"offset\":4,\"size\":100,"
		    "\"file\":{\"driver\":\"file\",\"filename\":\"jb\"}}",
		    NULL, UINT32_MAX);
	write_qcow2("jo", CLUSTER,
		    "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\","
		    "\"filename\":\"/etc/passwd\"}}",
		    NULL, UINT32_MAX);
	ck_assert_int_eq(open_chain("jt", &c), -EPERM);
	must(allow_add(&options.allow, "json:", &err), err);
	must(open_chain("jt", &c), err);
	ck_assert(c.depth == 2 && !c.layers[1]->guessed);
	chain_done(&c);
	must(open_chain("jw", &c), err);
	ck_assert_uint_eq(c.layers[1]->bytes, 100);
	chain_done(&c);
	ck_assert_int_eq(open_chain("jo", &c), -EPERM);
	unit_says(&err, "outside");
	allow_done(&options.allow);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, chains_go_256_deep_and_no_deeper);
	tcase_add_test(tc, a_refused_chain_leaves_nothing_open);
	tcase_add_test(tc, a_loop_is_found_whatever_it_is_called);
	LOOP(tc, layers_of_other_lengths_end_in_zeroes, lengths);
	tcase_add_test(tc, a_zero_cluster_hides_what_is_below);
	tcase_add_test(tc, a_guessed_lower_layer_refers_to_nothing);
	tcase_add_test(tc, a_declared_format_is_the_one_that_is_used);
	tcase_add_test(tc, names_are_relative_to_the_image_that_holds_them);
	tcase_add_test(tc, pseudo_names_are_opened_when_they_are_permitted);
}

int main(void)
{
	unit_need_openat2();
	return unit_main("chain", add);
}
