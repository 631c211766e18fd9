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
#include "formats/image.h"
#include "formats/room.h"
#include "iouring/batch.h"

#define ROUND_EXTENTS 64U

/* Room that a round takes, unless its first unit needs more. */
#define ROUND_ROOM_BYTES (512U << 10)
#define UNIT_ALIGN	 64U

/*
 * A chain's answers are remembered for a region at a time, so that what a
 * read costs does not depend on how many layers had to be asked.
 */
#define REGION_BYTES (1U << 20)

/* A walk may end early after this long; looked at every so many steps. */
#define WALK_NSEC	  500000000ULL
#define WALK_STEPS_A_LOOK 1024U

int image_from_chain(struct chain *chain, struct image **ret, struct error *err)
{
	struct image *img = calloc(1, sizeof(*img));

	if (!img) {
		chain_done(chain);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	img->chain = *chain;
	*chain = (struct chain){ 0 };
	img->bytes = img->chain.bytes;
	img->id = source_new_id();
	atomic_init(&img->refs, 1);
	*ret = img;
	return 0;
}

int image_open(const char *path, const struct open_options *options,
	       struct image **ret, struct error *err)
{
	struct chain chain;
	int r = chain_open(path, options, &chain, err);

	return r < 0 ? r : image_from_chain(&chain, ret, err);
}

struct image *image_ref(struct image *img)
{
	atomic_fetch_add_explicit(&img->refs, 1, memory_order_relaxed);
	return img;
}

void image_unref(struct image *img)
{
	if (!img ||
	    atomic_fetch_sub_explicit(&img->refs, 1, memory_order_acq_rel) > 1)
		return;
	chain_done(&img->chain);
	free(img);
}

void image_unrefp(struct image **img)
{
	image_unref(*img);
}

/* The IV sector of the byte @bytes behind the extent's first. */
static uint64_t iv_sector_at(const struct extent *e, uint64_t bytes)
{
	return e->iv_sector + (e->host_off % CIPHER_SECTOR_BYTES + bytes) /
				      CIPHER_SECTOR_BYTES;
}

/* May @b be told as one extent with @a, which ends where it begins? */
static bool joins(const struct extent *a, const struct extent *b)
{
	if (a->kind != b->kind || a->depth != b->depth ||
	    a->absent != b->absent || a->src != b->src ||
	    a->cipher != b->cipher)
		return false;
	switch (a->kind) {
	case EXTENT_DATA:
		return a->host_off + a->len == b->host_off &&
		       (!a->cipher || iv_sector_at(a, a->len) == b->iv_sector);
	case EXTENT_ZERO:
		return !a->src || a->host_off + a->len == b->host_off;
	case EXTENT_COMPRESSED:
		return false;
	default:
		return true;
	}
}

/* A region's extents, as they lie in the cache. */
struct region {
	size_t n;
	struct extent extents[];
};

/* @len: of the region, which the end of the image may cut. */
static int region_resolve(const struct image *img, uint64_t off, uint64_t len,
			  struct region **ret, struct error *err)
{
	size_t room = 4, n = 0;
	CLEANUP(freep)
	struct region *g = malloc(sizeof(*g) + room * sizeof(struct extent));
	struct region *grown;
	struct extent e;
	int r;

	if (!g)
		return error_set(err, -ENOMEM, 0, "out of memory");
	while (len) {
		r = chain_map(&img->chain, off, len, &e, err);
		if (r < 0)
			return r;
		/* Damage is told when it is read; see complain(). */
		error_clear(err);
		off += e.len;
		len -= e.len;
		if (n && joins(&g->extents[n - 1], &e)) {
			g->extents[n - 1].len += e.len;
			continue;
		}
		if (n == room) {
			room *= 2;
			grown = realloc(
				g, sizeof(*g) + room * sizeof(struct extent));
			if (!grown)
				return error_set(err, -ENOMEM, 0,
						 "out of memory");
			g = grown;
		}
		g->extents[n++] = e;
	}
	g->n = n;
	*ret = TAKE_PTR(g);
	return 0;
}

/* The cached region at @idx, held until cache_put(). */
static int region_get(struct image *img, uint64_t idx, struct cache_blob **ret,
		      struct error *err)
{
	struct cache_key key = { .owner = img->id, .at = idx };
	uint64_t off = idx * REGION_BYTES;
	struct region *g = NULL;
	struct cache_blob *b;
	int r = 0;

	switch (cache_get(&key, &b)) {
	case CACHE_HIT:
		break;
	case CACHE_BUSY:
		r = cache_wait(b);
		if (r < 0)
			error_set(err, r, 0, "%s",
				  "the chain's tables cannot be read");
		break;
	case CACHE_CLAIMED:
		r = region_resolve(img, off,
				   min_u64(REGION_BYTES, img->bytes - off), &g,
				   err);
		if (r < 0)
			cache_fail(b, r);
		else
			cache_fill(b, g,
				   sizeof(*g) + g->n * sizeof(struct extent));
		break;
	}
	if (r < 0) {
		cache_put(b);
		return r;
	}
	*ret = b;
	return 0;
}

/* The part of @e, which begins at @e_off, that lies in [@off, @off + @len). */
static struct extent extent_part(const struct extent *e, uint64_t e_off,
				 uint64_t off, uint64_t len)
{
	uint64_t skip = off > e_off ? off - e_off : 0;
	struct extent part = *e;

	part.len = min_u64(e->len - skip, len);
	if (e->kind == EXTENT_DATA) {
		part.iv_sector = iv_sector_at(e, skip);
		part.host_off += skip;
	} else if (e->kind == EXTENT_COMPRESSED) {
		part.unit_off += (uint32_t)skip;
	}
	return part;
}

/* As many of the region's extents as there is room for. */
static int resolve_region(struct image *img, uint64_t off, uint64_t len,
			  struct extent *ret, size_t max, size_t *ret_n,
			  struct error *err)
{
	uint64_t idx = off / REGION_BYTES, at = idx * REGION_BYTES;
	struct cache_blob *b;
	const struct region *g;
	uint64_t end;
	size_t i, n = 0;
	int r;

	r = region_get(img, idx, &b, err);
	if (r < 0)
		return r;
	g = b->data;
	end = min_u64(off + len, at + REGION_BYTES);
	for (i = 0; i < g->n && n < max && off < end; i++) {
		if (at + g->extents[i].len > off) {
			ret[n] =
				extent_part(&g->extents[i], at, off, end - off);
			off += ret[n++].len;
		}
		at += g->extents[i].len;
	}
	cache_put(b);
	*ret_n = n;
	return 0;
}

/*
 * Extents of [@off, @off + @len), or of as much of it as @max hold. One layer
 * answers as fast as memory does; more are remembered.
 */
int image_resolve(struct image *img, uint64_t off, uint64_t len,
		  struct extent *ret, size_t max, size_t *ret_n,
		  struct error *err)
{
	size_t n = 0, more;
	int r;

	while (n < max && len) {
		if (img->chain.depth == 1) {
			r = chain_map(&img->chain, off, len, &ret[n], err);
			more = 1;
		} else {
			r = resolve_region(img, off, len, ret + n, max - n,
					   &more, err);
		}
		if (r < 0)
			return r;
		while (more--) {
			off += ret[n].len;
			len -= ret[n].len;
			n++;
		}
	}
	*ret_n = n;
	return 0;
}

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
	struct batch_io ios[ROUND_EXTENTS];
	const struct extent *io_extents[ROUND_EXTENTS]; /* NULL: a unit's */
	size_t n_ios;
	struct unit units[ROUND_EXTENTS];
	size_t n_units;
	size_t room_bytes; /* that its units may need */
	struct room room;
};

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
	if (peek_unit(u))
		return copy_unit(u, err);
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
	if (r < 0)
		error_set(err, r, e->host_off,
			  "compressed data at %" PRIu64 " cannot be read: %s",
			  e->host_off, errno_text(-r));
	else
		r = codec_decode(e->codec, u->in, e->comp_bytes, u->out,
				 u->bytes, u->bytes == e->unit_bytes, err);
	if (r < 0) {
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
	int r = 0, code;
	size_t i;

	for (i = 0; i < rd->n_units; i++) {
		struct unit *u = &rd->units[i];

		if (!u->ours)
			continue;
		code = decode_unit(u, rd->ios[u->in_idx].ret, err);
		r = r ? r : code;
	}
	for (i = 0; i < rd->n_units; i++) {
		struct unit *u = &rd->units[i];

		if (!r)
			r = await_unit(u, err);
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
		r = cipher_decrypt(e->cipher, iv_sector_at(e, in), sector,
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

/* Read errors name where; the layer's own words were told by resolve. */
static int finish_ios(struct round *rd, struct error *err)
{
	size_t i;
	int r;

	for (i = 0; i < rd->n_ios; i++) {
		const struct extent *e = rd->io_extents[i];
		struct batch_io *io = &rd->ios[i];

		if (!e)
			continue;
		if (io->ret < 0)
			return error_set(
				err, io->ret, io->off,
				"%zu bytes at %" PRIu64 " cannot be read: %s",
				io->len, io->off, errno_text(-io->ret));
		r = e->cipher ? decipher(e, io->buf, io->len, err) : 0;
		if (r < 0)
			return r;
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

/* One round: as many extents as fit. *ret_done: guest bytes seen to. */
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
	rd.n_ios = rd.n_units = rd.room_bytes = 0;
	rd.room = (struct room){ 0 };
	for (i = 0; i < n && !r; i++) {
		const struct extent *e = &extents[i];

		switch ((enum extent_kind)e->kind) {
		case EXTENT_HOLE:
		case EXTENT_ZERO:
			memset(buf + done, 0, e->len);
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
		batch_run(rd.ios, rd.n_ios);
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

	while (len) {
		r = read_round(x, p, len, off, &done, err);
		if (r < 0)
			return r;
		p += done;
		off += done;
		len -= done;
	}
	return 0;
}

/* An image's answers. */
struct image_reader {
	struct extent_reader x;
	struct image *img;
};

static int reader_resolve(struct extent_reader *x, uint64_t off, uint64_t len,
			  struct extent *ret, size_t max, size_t *ret_n,
			  struct error *err)
{
	struct image_reader *r = container_of(x, struct image_reader, x);

	return image_resolve(r->img, off, len, ret, max, ret_n, err);
}

static int reader_map(struct extent_reader *x, uint64_t off, uint64_t len,
		      struct extent *ret, struct error *err)
{
	struct image_reader *r = container_of(x, struct image_reader, x);

	return chain_map(&r->img->chain, off, len, ret, err);
}

static struct image_reader image_reader(struct image *img)
{
	return (struct image_reader){ .x = { .resolve = reader_resolve,
					     .map = reader_map },
				      .img = img };
}

int image_read(struct image *img, void *buf, size_t len, uint64_t off,
	       struct error *err)
{
	struct image_reader r = image_reader(img);

	if (!range_inside(off, len, img->bytes))
		return error_set(err, -EINVAL, off,
				 "%zu bytes at %" PRIu64
				 " are not inside the disk's %" PRIu64,
				 len, off, img->bytes);
	return extents_read(&r.x, buf, len, off, err);
}

/* Data that take no room in their file are zeroes that a client may skip. */
static void look_for_hole(struct extent *e)
{
	uint64_t len = e->len;
	bool hole = false;

	if (e->kind != EXTENT_DATA || e->cipher ||
	    source_find_hole(e->src, e->host_off, e->len, &hole, &len) < 0)
		return;
	e->len = len;
	if (hole)
		e->kind = EXTENT_ZERO;
}

int extents_walk(struct extent_reader *x, uint64_t off, uint64_t len,
		 int (*each)(void *opaque, uint64_t off,
			     const struct extent *e),
		 void *opaque, uint64_t *ret_end, struct error *err)
{
	uint64_t end = off + len, deadline = now_nsec() + WALK_NSEC;
	struct extent run = { 0 }, e;
	unsigned int steps = 0;
	int r;

	*ret_end = off;
	while (off < end) {
		if (++steps % WALK_STEPS_A_LOOK == 0 && now_nsec() > deadline)
			break;
		r = x->map(x, off, end - off, &e, err);
		if (r < 0)
			return r;
		error_clear(err);
		look_for_hole(&e);
		if (run.len && joins(&run, &e)) {
			run.len += e.len;
		} else {
			if (run.len) {
				*ret_end = off;
				r = each(opaque, off - run.len, &run);
				if (r)
					return r;
			}
			run = e;
		}
		off += e.len;
	}
	*ret_end = off;
	return run.len ? each(opaque, off - run.len, &run) : 0;
}

int image_walk(struct image *img, uint64_t off, uint64_t len,
	       int (*each)(void *opaque, uint64_t off, const struct extent *e),
	       void *opaque, uint64_t *ret_end, struct error *err)
{
	struct image_reader r = image_reader(img);

	return extents_walk(&r.x, off, len, each, opaque, ret_end, err);
}

static int prefetch_extent(void *opaque, uint64_t off, const struct extent *e)
{
	if (e->kind == EXTENT_DATA || e->kind == EXTENT_COMPRESSED)
		source_prefetch(e->src, e->host_off,
				e->kind == EXTENT_DATA ? e->len
						       : e->comp_bytes);
	return 0;
}

int image_prefetch(struct image *img, uint64_t off, uint64_t len,
		   struct error *err)
{
	uint64_t end;

	return image_walk(img, off, len, prefetch_extent, NULL, &end, err);
}
