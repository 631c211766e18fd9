/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file of the format FUZZ_FORMAT out of anything: open, map, read,
 * snapshots, info, check.
 *
 * With libFuzzer (-Dfuzz=true and clang) it searches. Without, main() runs
 * the files and folders of its arguments, as a regression test: what is named
 * valid-* must open and be sound, what is named hostile-* must be refused or
 * be found damaged. --mutate FOLDER runs what mutate.h makes of its files.
 *
 * Beyond not crashing, answers must agree with each other: the second half of
 * an extent is what map() says of it when asked alone, and image_read() gives
 * what the extents say.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/cache.h"
#include "formats/image.h"
#include "tests/fuzz/expand.h"
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/replay.h"

#define MAP_STEPS  256U /* extents asked for from one offset on */
#define READ_BYTES 4096U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Nothing lies in it: no name leads anywhere. */
static struct folder *empty_folder(void)
{
	static struct folder *folder;
	char path[] = "/tmp/fuzz-" FUZZ_FORMAT "-XXXXXX";
	struct error err = { 0 };

	if (folder)
		return folder;
	MUST(mkdtemp(path), "mkdtemp: %s", strerror(errno));
	MUST(folder_open(path, &folder, &err) == 0, "%s", err.msg);
	rmdir(path);
	cache_configure(4 << 20);
	return folder;
}

static struct layer *open_layer(const uint8_t *data, size_t bytes,
				const char *snapshot, const char *key,
				struct error *err)
{
	struct open_options options = {
		.format = FUZZ_FORMAT,
		.snapshot = snapshot,
		.key = (const uint8_t *)key,
		.key_bytes = key ? strlen(key) : 0,
	};
	struct source *src = NULL;
	struct layer *l = NULL;
	int r;

	MUST(memory_source_new(data, bytes, &src, err) == 0, "%s", err->msg);
	r = layer_open(src, "image", folder_place(empty_folder()), FUZZ_FORMAT,
		       true, &options, &l, err);
	MUST(r <= 0 && r == err->code, "open gave %d, its error has %d", r,
	     err->code);
	MUST(!r || err->msg[0], "a refusal without a reason");
	MUST(!strpbrk(err->msg, "\n\r\033"), "control bytes in: %s", err->msg);
	return l;
}

static bool same_place(const struct extent *a, const struct extent *b,
		       uint64_t bytes_on)
{
	if (a->kind != b->kind)
		return false;
	if (a->kind == EXTENT_DATA)
		return b->src == a->src &&
		       b->host_off == a->host_off + bytes_on;
	if (a->kind == EXTENT_COMPRESSED)
		return b->host_off == a->host_off &&
		       b->unit_off == a->unit_off + bytes_on;
	return true;
}

/* The rest of @e, asked for alone. */
static void map_rest(struct layer *l, uint64_t off, const struct extent *e)
{
	struct extent rest;
	uint64_t half = e->len / 2;

	if (!half)
		return;
	MUST(layer_map(l, off + half, l->bytes - off - half, &rest, NULL) == 0,
	     "map fails in the middle of an extent at %" PRIu64, off);
	MUST(same_place(e, &rest, half),
	     "extent at %" PRIu64 " of kind %u is another in its middle: %u",
	     off, e->kind, rest.kind);
}

/* Reads the first bytes of @e and compares. */
static void read_extent(struct image *img, uint64_t off, const struct extent *e)
{
	static const uint8_t zeroes[READ_BYTES];
	uint8_t got[READ_BYTES], want[READ_BYTES];
	size_t len = (size_t)min_u64(e->len, READ_BYTES);
	int r = image_read(img, got, len, off, NULL);

	switch (e->kind) {
	case EXTENT_HOLE:
	case EXTENT_ZERO:
		MUST(r == 0 && !memcmp(got, zeroes, len),
		     "zeroes at %" PRIu64 " do not read as such: %d", off, r);
		break;
	case EXTENT_DATA:
		MUST(r == 0, "data at %" PRIu64 " cannot be read: %d", off, r);
		if (e->cipher)
			break;
		MUST(source_read(e->src, want, len, e->host_off, NULL) == 0 &&
			     !memcmp(got, want, len),
		     "data at %" PRIu64 " are not what is in the file", off);
		break;
	case EXTENT_DAMAGED:
		MUST(r < 0, "damage at %" PRIu64 " can be read", off);
		break;
	}
}

static void walk_from(struct image *img, uint64_t off,
		      struct replay_outcome *ret)
{
	struct layer *l = img->chain.layers[0];
	unsigned int i;

	for (i = 0; i < MAP_STEPS && off < l->bytes; i++) {
		struct error err = { 0 };
		struct extent e;
		int r = layer_map(l, off, l->bytes - off, &e, &err);

		if (r == -EACCES)
			return;
		MUST(r == 0, "map at %" PRIu64 ": %s", off, err.msg);
		MUST(e.len && e.len <= l->bytes - off,
		     "map at %" PRIu64 " answers for %" PRIu64 " bytes", off,
		     e.len);
		if (e.kind == EXTENT_DAMAGED)
			ret->damaged = true;
		map_rest(l, off, &e);
		if (i < 16)
			read_extent(img, off, &e);
		off += e.len;
	}
}

/* Takes @l over. */
static void use_layer(struct layer *l, struct replay_outcome *ret)
{
	struct chain chain = { .layers = { l }, .depth = 1, .bytes = l->bytes };
	struct error err = { 0 };
	struct image *img = NULL;
	unsigned int i;

	MUST(image_from_chain(&chain, &img, &err) == 0, "%s", err.msg);
	for (i = 0; i < 4; i++)
		walk_from(img, img->bytes / 4 * i, ret);
	if (img->bytes)
		walk_from(img, img->bytes - 1, ret);
	image_unref(img);
}

/* Its first runs; the second half of one is what it says when asked alone. */
static int walk_bitmap(void *opaque, const struct bitmap *b)
{
	struct layer *l = opaque;
	uint64_t off = 0, len, half;
	bool set, again;
	unsigned int i;

	MUST(b->name[0], "a bitmap without a name");
	for (i = 0; i < MAP_STEPS && off < l->bytes; i++) {
		if (layer_map_bitmap(l, b, off, l->bytes - off, &set, &len,
				     NULL) < 0)
			break;
		MUST(len && len <= l->bytes - off,
		     "bitmap at %" PRIu64 " answers for %" PRIu64 " bytes", off,
		     len);
		off += len / 2;
		MUST(layer_map_bitmap(l, b, off, len - len / 2, &again, &half,
				      NULL) == 0 &&
			     again == set && half == len - len / 2,
		     "bitmap at %" PRIu64 " is another in its middle", off);
		off += half;
	}
	return 0;
}

static void say_nothing(struct check_report *r, const char *line)
{
	MUST(line[0] && !strpbrk(line, "\n\r\033"), "a finding is: %s", line);
}

static void check_layer(struct layer *l, struct replay_outcome *ret)
{
	struct check_report report = { .say = say_nothing };
	struct error err = { 0 };
	int r = l->ops->check ? l->ops->check(l, &report, &err) : 0;

	MUST(r <= 0 && r == err.code, "check gave %d, its error has %d", r,
	     err.code);
	if (r < 0 || report.corruptions || report.leaks || report.check_errors)
		ret->damaged = true;
}

static int keep_first(void *opaque, const struct snapshot *s)
{
	char **id = opaque;

	*id = strdup(s->id);
	return 1;
}

struct sink {
	struct info_sink sink;
	bool aes; /* what a key opens at once */
};

static void look_for_aes(struct info_sink *s, const char *key,
			 const char *value)
{
	MUST(key && value, "info without a value");
	if (!strcmp(key, "encrypt-format") && !strcmp(value, "aes"))
		container_of(s, struct sink, sink)->aes = true;
}

static void ignore_number(struct info_sink *s, const char *key, uint64_t value)
{
	MUST(key, "info without a key");
}

static void ignore_flag(struct info_sink *s, const char *key, bool value)
{
	MUST(key, "info without a key");
}

static void run(const uint8_t *data, size_t bytes, struct replay_outcome *ret)
{
	struct sink s = { { look_for_aes, ignore_number, ignore_flag } };
	CLEANUP(freep) char *id = NULL;
	struct layer *l;

	*ret = (struct replay_outcome){ 0 };
	fuzz_expand(FUZZ_FORMAT, &data, &bytes);
	l = open_layer(data, bytes, NULL, NULL, &ret->reason);
	if (!l) {
		ret->refused = true;
		return;
	}
	if (l->ops->info)
		l->ops->info(l, &s.sink);
	layer_snapshots(l, keep_first, &id, NULL);
	layer_bitmaps(l, walk_bitmap, l, NULL);
	check_layer(l, ret);
	use_layer(l, ret);

	/* LUKS with a key is luks-key.c's, and slow by intent. */
	l = s.aes ? open_layer(data, bytes, NULL, "key", &(struct error){ 0 })
		  : NULL;
	if (l)
		use_layer(l, ret);
	l = id ? open_layer(data, bytes, id, NULL, &(struct error){ 0 }) : NULL;
	if (l)
		use_layer(l, ret);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct replay_outcome o;

	run(data, bytes, &o);
	return 0;
}

#ifndef FUZZ_LIBFUZZER
static int run_mutants(const char *folder)
{
	static const char *const big_endian[] = { "cloop", "dmg",   "luks",
						  "qcow",  "qcow2", "vhd" };
	struct mutate_options o = { 0 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(big_endian); i++)
		o.big_endian |= !strcmp(FUZZ_FORMAT, big_endian[i]);
	o.skip = fuzz_expand_flags(FUZZ_FORMAT);
	return mutate(folder, &o, run);
}

int main(int argc, char **argv)
{
	int status;

	if (argc == 3 && !strcmp(argv[1], "--mutate"))
		status = run_mutants(argv[2]);
	else
		status = replay(argc, argv, run);
	folder_unref(empty_folder());
	cache_shutdown();
	return status;
}
#endif
