/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A compressed stream from its bytes: what is read at random is what is read in
 * order, or it fails. Built for each form and run as fuzz-format.c is.
 */
#include <errno.h>
#include <string.h>

#include "formats/cache.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"
#include "tests/fuzz/replay.h"

#define CLOSELY (512U << 10) /* bytes, of what comes out */

static void check_refusal(int r, const struct error *err)
{
	MUST(r <= 0 && r == err->code, "gave %d, its error has %d", r,
	     err->code);
	MUST(!r || err->msg[0], "a refusal without a reason");
	MUST(!strpbrk(err->msg, "\n\r\033"), "control bytes in: %s", err->msg);
}

/* In order, then from behind, in pieces that none of ours begin with. */
static void check_reads(struct source *src, struct replay_outcome *ret)
{
	size_t n = (size_t)min_u64(src->bytes, CLOSELY), at, len;
	CLEANUP(freep) uint8_t *all = malloc(CLOSELY);
	CLEANUP(freep) uint8_t *some = malloc(CLOSELY);
	struct error err = { 0 };

	MUST(all && some, "no memory");
	if (source_read(src, all, n, 0, &err) < 0) {
		ret->damaged = true;
		return;
	}
	for (at = n; at; at -= len) {
		len = min_size(at, 37777);
		if (source_read(src, some, len, at - len, NULL) < 0)
			ret->damaged = true;
		else
			MUST(!memcmp(some, all + at - len, len),
			     "other bytes at %zu", at - len);
	}
	/* The last of it, which may be far. */
	if (src->bytes > n && src->bytes < 16 * CLOSELY &&
	    source_read(src, some, 1, src->bytes - 1, NULL) < 0)
		ret->damaged = true;
}

static void run(const uint8_t *data, size_t bytes, struct replay_outcome *ret)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(source_unrefp) struct source *stream = NULL;
	const struct stream_ops *ops = stream_probe(data, bytes);
	struct error err = { 0 };
	int r;

	*ret = (struct replay_outcome){ .refused = true };
	if (!ops || strcmp(ops->name, FUZZ_FORM) != 0)
		return;
	cache_configure(0); /* each read is decoded */
	MUST(memory_source_new(data, bytes, &src, &err) == 0, "%s", err.msg);
	r = stream_open(
		src, ops,
		&(struct stream_options){ .ratio_max = STREAM_RATIO_MAX },
		&stream, &ret->reason);
	check_refusal(r, &ret->reason);
	ret->refused = r < 0;
	if (r >= 0)
		check_reads(stream, ret);
}

FUZZ_ENTRY(run)
