/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading: resolve the range into extents, hand all that lies in files to the
 * engine as one batch, decode what is compressed.
 *
 * A request is done in rounds of at most ROUND_EXTENTS extents. In a round, what
 * the cache has of compressed units is copied first. For all others together
 * the round then takes room, waiting for it if need be, and only after that
 * claims any: whoever has claimed a unit has the memory to decode it. Those that
 * it claimed are read in the batch and decoded, those that others are decoding are
 * waited for at the end; so two threads never wait for each other.
 *
 * A unit that is wanted whole is decoded where it is wanted. What the cache keeps
 * of it is a copy, if there is a block for one.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/cache.h"
#include "formats/extents-read.h"
#include "formats/room.h"
#include "iouring/batch.h"
#include "iouring/later.h"
#include "iouring/nowait.h"

#define ROUND_EXTENTS 64U

/* Room that a round takes, unless its first unit needs more. */
#define ROUND_ROOM_BYTES (512U << 10)
#define UNIT_ALIGN	 64U

/* A compressed unit in a round. */
struct unit {
	struct cache_key key;
	struct cache_blob *blob; /* NULL: not claimed, nor held */
	const struct extent *e;
	uint8_t *dest;
	uint8_t *in; /* of the round's room, for comp_bytes */
	uint8_t *out; /* dest, a block of the cache, or of the round's room */
	uint8_t *block; /* NULL: out is not the cache's */
	size_t in_idx; /* of its read in the batch */
	uint32_t bytes; /* to decode: all of it, or its beginning */
	bool ours; /* to decode */
};

struct round {
	struct extent_reader *x;
	const uint8_t *buf; /* what is read into ... */
	uint64_t off; /* ... from here on */
	struct batch_io ios[ROUND_EXTENTS];
	const struct extent *io_extents[ROUND_EXTENTS]; /* NULL: a unit's */
	size_t n_ios;
	struct unit units[ROUND_EXTENTS];
	size_t n_units;
	size_t room_bytes; /* that its units may need */
	struct room room;
};

/*
 * Tells in @err, if nothing has been told yet, what @own says of data of @e that
 * go to @dest, the first @skip bytes of their unit aside.
 */
static void blame(const struct round *rd, const struct extent *e,
		  const void *dest, uint64_t skip, struct error *own,
		  struct error *err)
{
	uint64_t at = (uint64_t)((const uint8_t *)dest - rd->buf);

	if (!err || err->code || !own->code)
		return;
	rd->x->blame(rd->x, e, rd->off + at - skip, own);
	*err = *own;
}

static void blame_unit(const struct round *rd, const struct unit *u,
		       struct error *own, struct error *err)
{
	blame(rd, u->e, u->dest, u->e->unit_off, own, err);
}

static void add_io(struct round *rd, struct source *src, uint64_t off,
		   void *buf, size_t len, const struct extent *e)
{
	struct batch_io *last = rd->n_ios ? &rd->ios[rd->n_ios - 1] : NULL;

	/* Neighbours in the file and in memory are one read. */
	if (last && e && !e->cipher && rd->io_extents[rd->n_ios - 1] &&
	    !rd->io_extents[rd->n_ios - 1]->cipher && last->src == src &&
	    last->off + last->len == off &&
	    (uint8_t *)last->buf + last->len == buf &&
	    last->len + len <= BATCH_IO_MAX) {
		last->len += len;
		return;
	}
	rd->io_extents[rd->n_ios] = e;
	rd->ios[rd->n_ios++] = (struct batch_io){
		.src = src, .off = off, .buf = buf, .len = len
	};
}

/* Marks the key of a unit's beginning, which is not the unit's. */
#define KEY_BEGINNING (1ULL << 63)

static struct cache_key beginning_of(const struct extent *e)
{
	return (struct cache_key){ .owner = e->src->id,
				   .at = e->host_off | KEY_BEGINNING };
}

static bool is_wanted_whole(const struct unit *u)
{
	return u->e->len == u->e->unit_bytes;
}

/*
 * Copies what is wanted from the blob that the unit holds, and lets go of it.
 * Two tables' entries may disagree on what one place decodes to.
 */
static int copy_unit(struct unit *u, struct error *err)
{
	struct cache_blob *b = TAKE_PTR(u->blob);
	int r = 0;

	ANALYSER_ASSUME(b);
	if (range_inside(u->e->unit_off, u->e->len, b->bytes))
		memcpy(u->dest, (uint8_t *)b->data + u->e->unit_off, u->e->len);
	else
		r = error_set(err, -EIO, u->e->host_off,
			      "compressed data at %" PRIu64 " are of two sizes",
			      u->e->host_off);
	cache_put(b);
	return r;
}

/*
 * Is the unit in the cache, or enough of its beginning? Then the unit holds it.
 * Else it knows what to decode. A second reader of a unit whose beginning did
 * not suffice has it decoded whole, so reading on through a unit decodes it
 * once.
 */
static bool peek_unit(struct unit *u)
{
	const struct extent *e = u->e;
	uint32_t end = e->unit_off + (uint32_t)e->len;

	u->bytes = e->unit_bytes;
	u->key = (struct cache_key){ .owner = e->src->id, .at = e->host_off };
	if (cache_peek(&u->key, &u->blob))
		return true;
	u->bytes = codec_worthwhile(e->codec, end, e->unit_bytes);
	if (u->bytes == e->unit_bytes)
		return false;
	u->key = beginning_of(e);
	if (!cache_peek(&u->key, &u->blob))
		return false;
	ANALYSER_ASSUME(u->blob);
	if (u->blob->bytes >= end)
		return true;
	cache_put(TAKE_PTR(u->blob));
	u->bytes = e->unit_bytes;
	u->key.at = e->host_off;
	return false;
}

/* Room for one unit: what is read, and what it is decoded to. */
static size_t room_for(const struct unit *u)
{
	size_t in = round_up(u->e->comp_bytes, UNIT_ALIGN);

	return is_wanted_whole(u) || u->block
		       ? in
		       : in + round_up(u->bytes, UNIT_ALIGN);
}

/*
 * Takes what the cache has; else there is one more unit to finish. Returns 1
 * when it must wait for another round.
 */
static int add_unit(struct round *rd, const struct extent *e, uint8_t *dest,
		    struct error *err)
{
	struct unit *u = &rd->units[rd->n_units];

	*u = (struct unit){ .e = e, .dest = dest };
	if (peek_unit(u)) {
		struct error own = { 0 };
		int r = copy_unit(u, &own);

		blame_unit(rd, u, &own, err);
		return r;
	}
	if (!may_wait())
		return -EAGAIN;
	if (rd->n_units && rd->room_bytes + room_for(u) > ROUND_ROOM_BYTES)
		return 1;
	if (!is_wanted_whole(u))
		u->block = cache_block(u->bytes);
	rd->room_bytes += room_for(u);
	rd->n_units++;
	return 0;
}

static int take_room(struct round *rd, struct error *err)
{
	uint8_t *p;
	size_t i;

	if (room_take(rd->room_bytes, &rd->room) < 0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	p = rd->room.data;
	for (i = 0; i < rd->n_units; i++) {
		struct unit *u = &rd->units[i];

		u->in = p;
		p += round_up(u->e->comp_bytes, UNIT_ALIGN);
		u->out = is_wanted_whole(u) ? u->dest : u->block;
		if (u->out)
			continue;
		u->out = p;
		p += round_up(u->bytes, UNIT_ALIGN);
	}
	return 0;
}

/*
 * Looks again: it is ours to decode now, or somebody else's. One whose
 * beginning somebody else has decoded meanwhile, too little of it, is decoded
 * without the cache.
 */
static void claim_unit(struct unit *u)
{
	switch (cache_get(&u->key, &u->blob)) {
	case CACHE_CLAIMED:
		u->ours = true;
		break;
	case CACHE_HIT:
		ANALYSER_ASSUME(u->blob);
		u->ours = u->blob->bytes < u->bytes;
		if (u->ours)
			cache_put(TAKE_PTR(u->blob));
		break;
	case CACHE_BUSY:
		break;
	}
}

static void claim_units(struct round *rd)
{
	size_t i;

	for (i = 0; i < rd->n_units; i++) {
		struct unit *u = &rd->units[i];

		claim_unit(u);
		if (!u->ours)
			continue;
		u->in_idx = rd->n_ios;
		add_io(rd, u->e->src, u->e->host_off, u->in, u->e->comp_bytes,
		       NULL);
	}
}

/* Gives the cache what was decoded, or a copy of it. */
static void keep_unit(struct unit *u)
{
	const struct extent *e = u->e;
	struct cache_key beginning = beginning_of(e);
	uint8_t *block = TAKE_PTR(u->block);
	struct cache_blob *b = TAKE_PTR(u->blob);

	if (!b) {
		cache_block_free(block, u->bytes);
		return;
	}
	if (!block) {
		block = cache_block(u->bytes);
		if (block)
			memcpy(block, u->out, u->bytes);
	}
	if (block)
		cache_fill_block(b, block, u->bytes);
	else
		cache_fail(b, -EAGAIN);
	cache_put(b);
	if (block && u->bytes == e->unit_bytes)
		cache_drop(&beginning);
}

/*
 * Decodes a unit that is ours and has been read with @code. Whoever waits for
 * it is told, whatever became of it.
 */
static int decode_unit(struct unit *u, int code, struct error *err)
{
	const struct extent *e = u->e;
	int r = code;

	u->ours = false;
	if (r < 0) {
		error_set(err, r, e->host_off, "cannot be read: %s",
			  errno_text(-r));
	} else {
		r = codec_decode(e->codec, u->in, e->comp_bytes, u->out,
				 u->bytes, u->bytes == e->unit_bytes, err);
	}
	if (r < 0) {
		error_prefix(err, "compressed data at %" PRIu64, e->host_off);
		if (u->blob) {
			cache_fail(u->blob, r);
			cache_put(TAKE_PTR(u->blob));
		}
		return r;
	}
	if (u->out != u->dest)
		memcpy(u->dest, u->out + e->unit_off, e->len);
	keep_unit(u);
	return 0;
}

/* Reads and decodes one alone. */
static int read_unit(struct unit *u, struct error *err)
{
	struct batch_io io = { .src = u->e->src,
			       .off = u->e->host_off,
			       .buf = u->in,
			       .len = u->e->comp_bytes };

	return decode_unit(u, batch_run(&io, 1), err);
}

/*
 * Waits for a unit that somebody else is decoding. When he had no room to keep
 * it, this thread decodes it: it has claimed nothing else by now.
 */
static int await_unit(struct unit *u, struct error *err)
{
	int r;

	while (u->blob) {
		r = cache_wait(u->blob);
		if (!r && u->blob->bytes >= u->bytes)
			return copy_unit(u, err);
		cache_put(TAKE_PTR(u->blob));
		if (r < 0 && r != -EAGAIN)
			return error_set(err, r, u->e->host_off,
					 "compressed data at %" PRIu64
					 " cannot be decoded: %s",
					 u->e->host_off, errno_text(-r));
		claim_unit(u);
		if (u->ours)
			return read_unit(u, err);
	}
	return 0;
}

/* Every unit is seen to, also after a failure: others may wait for it. */
static int finish_units(struct round *rd, struct error *err)
{
	struct error own = { 0 };
	int r = 0, code;
	size_t i;

	for (i = 0; i < rd->n_units; i++) {
		struct unit *u = &rd->units[i];

		if (!u->ours)
			continue;
		code = decode_unit(u, rd->ios[u->in_idx].ret, &own);
		if (code < 0)
			blame_unit(rd, u, &own, err);
		r = r ? r : code;
	}
	for (i = 0; i < rd->n_units; i++) {
		struct unit *u = &rd->units[i];

		if (!r) {
			r = await_unit(u, &own);
			blame_unit(rd, u, &own, err);
		}
		if (u->blob)
			cache_put(TAKE_PTR(u->blob));
		cache_block_free(u->block, u->bytes);
	}
	room_give(&rd->room);
	return r;
}

/*
 * Deciphers what a read of @e brought to @buf. Sectors that the read holds in
 * part, at its ends, are read whole once more.
 */
static int decipher_edge(const struct extent *e, uint64_t in, uint8_t *dest,
			 size_t len, struct error *err)
{
	uint64_t at = round_down(e->host_off + in, CIPHER_SECTOR_BYTES);
	size_t skip = (size_t)(e->host_off + in - at), n;
	uint8_t sector[CIPHER_SECTOR_BYTES] = { 0 };
	int r;

	n = (size_t)min_u64(sizeof(sector), e->src->bytes - at);
	r = source_read(e->src, sector, n, at, err);
	if (r >= 0)
		r = cipher_decrypt(e->cipher, extent_iv_sector(e, in), sector,
				   sizeof(sector));
	if (r < 0)
		return error_set(err, r, at, "cannot be deciphered");
	memcpy(dest, sector + skip, len);
	return 0;
}

static int decipher(const struct extent *e, uint8_t *buf, size_t len,
		    struct error *err)
{
	size_t head = (size_t)(-e->host_off % CIPHER_SECTOR_BYTES), whole;
	int r = 0;

	head = min_size(head, len);
	whole = (size_t)round_down(len - head, CIPHER_SECTOR_BYTES);
	if (head)
		r = decipher_edge(e, 0, buf, head, err);
	if (!r && whole)
		r = cipher_decrypt(e->cipher, e->iv_sector + (head ? 1 : 0),
				   buf + head, whole);
	if (r < 0)
		return error_set(err, r, e->host_off, "cannot be deciphered");
	if (head + whole < len)
		r = decipher_edge(e, head + whole, buf + head + whole,
				  len - head - whole, err);
	return r;
}

static int finish_io(const struct extent *e, const struct batch_io *io,
		     struct error *err)
{
	if (io->ret >= 0)
		return e->cipher ? decipher(e, io->buf, io->len, err) : 0;
	source_explain(io->src, io->off, io->len, err);
	error_set(err, io->ret, io->off,
		  "%zu bytes at %" PRIu64 " cannot be read: %s", io->len,
		  io->off, errno_text(-io->ret));
	return io->ret;
}

static int finish_ios(struct round *rd, struct error *err)
{
	size_t i;
	int r;

	for (i = 0; i < rd->n_ios; i++) {
		const struct extent *e = rd->io_extents[i];
		struct batch_io *io = &rd->ios[i];
		struct error own;

		if (!e || (io->ret >= 0 && !e->cipher))
			continue;
		error_clear(&own);
		r = finish_io(e, io, &own);
		if (r < 0) {
			blame(rd, e, io->buf, 0, &own, err);
			return r;
		}
	}
	return 0;
}

/* What is damaged at @off? The map that found it says so again. */
static int complain(struct extent_reader *x, uint64_t off, struct error *err)
{
	struct extent e;

	if (!err || !err->code)
		x->map(x, off, 1, &e, err);
	error_set(err, -EIO, 0, "guest offset %" PRIu64 " is damaged", off);
	if (err)
		err->code = -EIO;
	return -EIO;
}

/* Zeroes are noted where that pays, and written else. */
static void put_zeroes(struct zero_runs *z, uint8_t *at, uint64_t len)
{
	if (!z || len < ZERO_RUN_MIN || z->n == ZERO_RUNS_MAX) {
		memset(at, 0, len);
		return;
	}
	z->runs[z->n++] = (struct zero_run){ (size_t)(at - z->buf), len };
}

/* Is nothing left to be done when the reads have ended? */
static bool is_plain(const struct round *rd)
{
	size_t i;

	for (i = 0; i < rd->n_ios; i++)
		if (!rd->io_extents[i] || rd->io_extents[i]->cipher)
			return false;
	return true;
}

/* BATCH_LATER, or 0: what each came to is told by itself. @last: of the read. */
static int run_ios(struct round *rd, bool last)
{
	if (last && is_plain(rd))
		return batch_run_last(rd->ios, rd->n_ios) == BATCH_LATER
			       ? BATCH_LATER
			       : 0;
	batch_run(rd->ios, rd->n_ios);
	return 0;
}

/*
 * One round: as many extents as fit. *ret_done: guest bytes seen to. Returns
 * BATCH_LATER when that is all, and reads are under way.
 */
static int read_round(struct extent_reader *x, uint8_t *buf, size_t len,
		      uint64_t off, size_t *ret_done, struct error *err)
{
	struct extent extents[ROUND_EXTENTS];
	struct round rd;
	size_t n = 0, i, done = 0;
	int r, code;

	r = x->resolve(x, off, len, extents, ROUND_EXTENTS, &n, err);
	if (r < 0)
		return r;
	rd.x = x;
	rd.buf = buf;
	rd.off = off;
	rd.n_ios = rd.n_units = rd.room_bytes = 0;
	rd.room = (struct room){ 0 };
	for (i = 0; i < n && !r; i++) {
		const struct extent *e = &extents[i];

		switch ((enum extent_kind)e->kind) {
		case EXTENT_HOLE:
		case EXTENT_ZERO:
			put_zeroes(x->zeroes, buf + done, e->len);
			break;
		case EXTENT_DATA:
			add_io(&rd, e->src, e->host_off, buf + done, e->len, e);
			break;
		case EXTENT_COMPRESSED:
			r = add_unit(&rd, e, buf + done, err);
			break;
		case EXTENT_DAMAGED:
			r = complain(x, off + done, err);
			break;
		}
		if (!r)
			done += e->len;
	}
	*ret_done = done;
	if (r > 0)
		r = 0; /* the rest is for the next round */
	if (!r && rd.n_units)
		r = take_room(&rd, err);
	if (!r)
		claim_units(&rd);
	if (!r && rd.n_ios)
		r = run_ios(&rd, done == len);
	if (r == BATCH_LATER)
		return r;
	code = finish_units(&rd, err);
	r = r ? r : code;
	return r ? r : finish_ios(&rd, err);
}

int extents_read(struct extent_reader *x, void *buf, size_t len, uint64_t off,
		 struct error *err)
{
	uint8_t *p = buf;
	size_t done;
	int r;

	if (x->zeroes) {
		x->zeroes->buf = buf;
		x->zeroes->n = 0;
	}
	while (len) {
		r = read_round(x, p, len, off, &done, err);
		if (r)
			return r;
		p += done;
		off += done;
		len -= done;
	}
	return 0;
}
