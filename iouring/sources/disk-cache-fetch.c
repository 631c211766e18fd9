/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading through the cache, in rounds of at most ROUND_PIECES parts of chunks. A
 * round reads what is there from the disk; claims what is missing, and nobody
 * fetches yet, and fetches all that in one batch; and then waits for what others
 * fetch. Who claims has a buffer, and lands all that he claimed before he waits: so
 * two never wait for each other. What was taken away meanwhile, or was not kept, is
 * for the next round.
 */
#include <errno.h>
#include <string.h>

#include "iouring/batch.h"
#include "iouring/nowait.h"
#include "iouring/sources/disk-cache-inside.h"
#include "iouring/write.h"

#define ROUND_PIECES 64U
#define BUFFERS_MAX  128U /* of the process, KEPT_CHUNK_BYTES each */
#define FETCHES_MAX  ROUND_PIECES
#define USED_BITS    8U

/* ---- buffers ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t given;
	void *idle[BUFFERS_MAX];
	unsigned int n_idle, n;
} buffers = { .lock = PTHREAD_MUTEX_INITIALIZER,
	      .given = PTHREAD_COND_INITIALIZER };

/* NULL: there is none now, or, where it @waits, no memory. */
static void *take_buffer(bool waits)
{
	void *b = NULL;

	pthread_mutex_lock(&buffers.lock);
	while (waits && !buffers.n_idle && buffers.n == BUFFERS_MAX)
		pthread_cond_wait(&buffers.given, &buffers.lock);
	if (buffers.n_idle) {
		b = buffers.idle[--buffers.n_idle];
	} else if (buffers.n < BUFFERS_MAX) {
		b = malloc(KEPT_CHUNK_BYTES);
		buffers.n += !!b;
	}
	pthread_mutex_unlock(&buffers.lock);
	return b;
}

static void give_buffer(void *b)
{
	pthread_mutex_lock(&buffers.lock);
	buffers.idle[buffers.n_idle++] = b;
	pthread_cond_signal(&buffers.given);
	pthread_mutex_unlock(&buffers.lock);
}

/* ---- a round ---- */

enum piece_state {
	PIECE_NEW, /* for this round, or the next one */
	PIECE_HIT,
	PIECE_OURS,
	PIECE_THEIRS,
	PIECE_DONE,
};

/* A part of a chunk that is wanted. */
struct piece {
	struct batch_io *io;
	size_t pos, len; /* in io->buf; len 0: it is to be there, no more */
	size_t chunk, in_chunk;
	enum piece_state state;
	size_t fetch; /* OURS */
	struct cache_flight *flight; /* THEIRS */
};

struct fetch {
	struct cache_flight *flight;
	void *buf;
};

struct round {
	struct cache_source *src;
	struct cached *c;
	struct piece pieces[ROUND_PIECES];
	size_t n;
	struct fetch fetches[FETCHES_MAX];
	size_t n_fetches;
	struct batch_io ios[ROUND_PIECES];
	bool behind; /* nobody waits for it */
	bool waited; /* not all was there */
};

static void mark_used(struct cached *c, size_t chunk)
{
	atomic_fetch_or_explicit(&c->used[chunk / USED_BITS],
				 (unsigned char)(1U << chunk % USED_BITS),
				 memory_order_relaxed);
}

static bool joins_ours(struct round *rd, struct piece *p)
{
	size_t i;

	for (i = 0; i < rd->n_fetches; i++)
		if (rd->fetches[i].flight->chunk == p->chunk) {
			p->state = PIECE_OURS;
			p->fetch = i;
			return true;
		}
	return false;
}

/* false: there is no buffer for it in this round. */
static bool claim(struct round *rd, struct piece *p)
{
	void *buf = take_buffer(!rd->n_fetches);
	bool ours;

	if (!buf && rd->n_fetches)
		return false;
	p->flight = buf ? board_chunk(rd->c, p->chunk, &ours) : NULL;
	if (p->flight && ours) {
		p->state = PIECE_OURS;
		p->fetch = rd->n_fetches;
		rd->fetches[rd->n_fetches++] =
			(struct fetch){ TAKE_PTR(p->flight), buf };
		return true;
	}
	if (p->flight) {
		p->state = PIECE_THEIRS;
	} else if (!buf || ours) {
		p->io->ret = -ENOMEM;
		p->state = PIECE_DONE;
	} else {
		p->state = PIECE_HIT;
	}
	if (buf)
		give_buffer(buf);
	return true;
}

static void classify(struct round *rd)
{
	size_t i;

	rd->n_fetches = 0;
	for (i = 0; i < rd->n; i++) {
		struct piece *p = &rd->pieces[i];

		if (kept_has(&rd->c->f, p->chunk))
			p->state = PIECE_HIT;
		else if (!joins_ours(rd, p) && !claim(rd, p))
			break;
	}
}

/* What is there, from the disk. What cannot be read there is not there. */
static void read_hits(struct round *rd)
{
	struct kept_file *f = &rd->c->f;
	size_t i, n = 0;

	pthread_rwlock_rdlock(&rd->c->gate);
	for (i = 0; i < rd->n; i++) {
		struct piece *p = &rd->pieces[i];

		if (p->state != PIECE_HIT)
			continue;
		p->state = p->len ? PIECE_NEW : PIECE_DONE;
		if (!p->len || !kept_has(f, p->chunk))
			continue;
		rd->ios[n++] = (struct batch_io){
			.src = f->data,
			.off = (uint64_t)p->chunk * KEPT_CHUNK_BYTES +
			       p->in_chunk,
			.buf = (uint8_t *)p->io->buf + p->pos,
			.len = p->len,
			.token = p
		};
	}
	if (n)
		batch_run(rd->ios, n);
	pthread_rwlock_unlock(&rd->c->gate);
	for (i = 0; i < n; i++) {
		struct piece *p = rd->ios[i].token;

		if (rd->ios[i].ret < 0) {
			kept_take(f, p->chunk);
			continue;
		}
		p->state = PIECE_DONE;
		mark_used(rd->c, p->chunk);
		cache_note_hit(p->len);
	}
}

/* false: it was not kept. */
static bool store(struct cached *c, size_t chunk, const void *buf)
{
	size_t len = kept_chunk_bytes(&c->f, chunk);

	if (!cache_has_room() || atomic_load(&c->f.broken))
		return false;
	if (source_write(c->f.data, buf, len,
			 (uint64_t)chunk * KEPT_CHUNK_BYTES, NULL) < 0) {
		cache_note_full();
		return false;
	}
	mark_used(c, chunk);
	cache_note_stored(len);
	if (cache_count_chunk(c, chunk))
		return true;
	fill_wake();
	return false;
}

static void take_fetched(struct round *rd, size_t i, int code)
{
	struct fetch *f = &rd->fetches[i];
	size_t k, chunk = f->flight->chunk;

	if (!code) {
		cache_note_fetched(kept_chunk_bytes(&rd->c->f, chunk),
				   rd->behind);
		land_chunk(rd->c, f->flight,
			   store(rd->c, chunk, f->buf) ? 0 : -EAGAIN);
	} else {
		land_chunk(rd->c, f->flight, code);
	}
	for (k = 0; k < rd->n; k++) {
		struct piece *p = &rd->pieces[k];

		if (p->state != PIECE_OURS || p->fetch != i)
			continue;
		if (code)
			p->io->ret = code;
		else if (p->io->buf) /* else it was fetched for later */
			memcpy((uint8_t *)p->io->buf + p->pos,
			       (uint8_t *)f->buf + p->in_chunk, p->len);
		p->state = PIECE_DONE;
	}
	give_buffer(f->buf);
}

static void fetch_ours(struct round *rd)
{
	uint64_t began;
	size_t i;

	for (i = 0; i < rd->n_fetches; i++) {
		size_t chunk = rd->fetches[i].flight->chunk;

		rd->ios[i] = (struct batch_io){
			.src = rd->src->inner,
			.off = (uint64_t)chunk * KEPT_CHUNK_BYTES,
			.buf = rd->fetches[i].buf,
			.len = kept_chunk_bytes(&rd->c->f, chunk)
		};
	}
	if (!rd->n_fetches)
		return;
	began = now_nsec();
	if (!batch_run(rd->ios, rd->n_fetches))
		ahead_note_trip(rd->c,
				(uint64_t)rd->n_fetches * KEPT_CHUNK_BYTES,
				now_nsec() - began);
	for (i = 0; i < rd->n_fetches; i++)
		take_fetched(rd, i, rd->ios[i].ret);
}

static void await_theirs(struct round *rd)
{
	size_t i;
	int code;

	for (i = 0; i < rd->n; i++) {
		struct piece *p = &rd->pieces[i];

		if (p->state != PIECE_THEIRS)
			continue;
		code = await_chunk(rd->c, p->flight);
		p->state = PIECE_NEW;
		if (!code || code == -EAGAIN)
			continue;
		p->io->ret = code;
		p->state = PIECE_DONE;
	}
}

static bool has_to_wait(const struct round *rd)
{
	size_t i;

	for (i = 0; i < rd->n; i++)
		if (rd->pieces[i].state == PIECE_OURS ||
		    rd->pieces[i].state == PIECE_THEIRS)
			return true;
	return false;
}

static void run_round(struct round *rd)
{
	size_t i, left = 0;

	bool waits;

	classify(rd);
	waits = !rd->behind && has_to_wait(rd);
	if (waits)
		fill_note_demand(true);
	read_hits(rd);
	fetch_ours(rd);
	await_theirs(rd);
	if (waits)
		fill_note_demand(false);
	rd->waited |= waits;
	for (i = 0; i < rd->n; i++)
		if (rd->pieces[i].state == PIECE_NEW)
			rd->pieces[left++] = rd->pieces[i];
	rd->n = left;
}

/* ---- the source ---- */

/* More pieces of @io from *@pos on, as many as there is place for. */
static void add_pieces(struct round *rd, struct batch_io *io, size_t *pos)
{
	uint64_t off = io->src->root_off + io->off;

	while (rd->n < ROUND_PIECES && *pos < io->len) {
		size_t in = (size_t)((off + *pos) % KEPT_CHUNK_BYTES);
		size_t len = min_size(io->len - *pos, KEPT_CHUNK_BYTES - in);

		rd->pieces[rd->n++] = (struct piece){
			.io = io,
			.pos = *pos,
			.len = len,
			.chunk = (size_t)((off + *pos) / KEPT_CHUNK_BYTES),
			.in_chunk = in
		};
		*pos += len;
	}
}

/* Without the cache, which is somebody else's, or broken. */
static void read_inner(struct cache_source *src, struct batch_io *ios, size_t n)
{
	struct batch_io inner[ROUND_PIECES] = { 0 };
	size_t i = 0, k, m;

	while (i < n) {
		size_t first = i;

		for (m = 0; i < n && m < ROUND_PIECES; i++)
			if (ios[i].src->root == &src->s)
				inner[m++] = (struct batch_io){
					.src = src->inner,
					.off = ios[i].src->root_off +
					       ios[i].off,
					.buf = ios[i].buf,
					.len = ios[i].len
				};
		if (m)
			batch_run(inner, m);
		for (k = first, m = 0; k < i; k++)
			if (ios[k].src->root == &src->s)
				ios[k].ret = inner[m++].ret;
	}
}

static void note_read(struct cache_source *src, uint64_t off, size_t len,
		      bool waited)
{
	if (len)
		ahead_note(src, (size_t)(off / KEPT_CHUNK_BYTES),
			   (size_t)((off + len - 1) / KEPT_CHUNK_BYTES),
			   waited);
}

static void cache_read_all(struct source *s, struct batch_io *ios, size_t n)
{
	struct cache_source *src = container_of(s, struct cache_source, s);
	struct round rd;
	size_t i, pos;

	if (!cache_is_usable(src->c)) {
		read_inner(src, ios, n);
		return;
	}
	rd.src = src;
	rd.c = src->c;
	rd.n = 0;
	rd.behind = rd.waited = false;
	for (i = 0; i < n; i++) {
		if (ios[i].src->root != s)
			continue;
		ios[i].ret = 0;
		for (pos = 0; pos < ios[i].len;) {
			add_pieces(&rd, &ios[i], &pos);
			if (rd.n == ROUND_PIECES)
				run_round(&rd);
		}
	}
	while (rd.n)
		run_round(&rd);
	for (i = 0; i < n; i++)
		if (ios[i].src->root == s)
			note_read(src, ios[i].src->root_off + ios[i].off,
				  ios[i].len, rd.waited);
}

static bool has_all(const struct kept_file *f, uint64_t off, size_t len)
{
	size_t chunk = (size_t)(off / KEPT_CHUNK_BYTES);
	size_t last = (size_t)((off + len - 1) / KEPT_CHUNK_BYTES);

	while (chunk <= last && kept_has(f, chunk))
		chunk++;
	return chunk > last;
}

static int cache_read_now(struct source *s, void *buf, size_t len, uint64_t off)
{
	struct cache_source *src = container_of(s, struct cache_source, s);
	struct cached *c = src->c;
	int r = -EAGAIN;

	if (!cache_is_usable(c) || pthread_rwlock_tryrdlock(&c->gate))
		return -EAGAIN;
	if (has_all(&c->f, off, len))
		r = nowait_read_file(source_file(c->f.data), buf, len, off);
	pthread_rwlock_unlock(&c->gate);
	if (r < 0)
		return r;
	mark_used(c, (size_t)(off / KEPT_CHUNK_BYTES));
	cache_note_hit(len);
	note_read(src, off, len, false);
	return 0;
}

/* Fetches what is missing, and waits for it; @behind: nobody else does. */
static int fetch_chunks(struct cache_source *src, size_t chunk, size_t n,
			bool behind)
{
	struct batch_io nobody = { .src = &src->s };
	struct round rd = { .src = src, .c = src->c, .behind = behind };
	size_t end = chunk + n;

	/* What cannot be kept would be fetched for nothing. */
	while (chunk < end && cache_is_usable(src->c) && cache_has_room() &&
	       !nobody.ret) {
		for (; chunk < end && rd.n < ROUND_PIECES; chunk++)
			if (!kept_has(&src->c->f, chunk))
				rd.pieces[rd.n++] =
					(struct piece){ .io = &nobody,
							.chunk = chunk };
		run_round(&rd);
	}
	while (rd.n && !nobody.ret)
		run_round(&rd);
	return nobody.ret;
}

static int fetch_behind(struct cache_source *src, size_t chunk, size_t n)
{
	return fetch_chunks(src, chunk, n, true);
}

static void cache_prefetch(struct source *s, uint64_t off, uint64_t len)
{
	size_t chunk = (size_t)(off / KEPT_CHUNK_BYTES);

	if (len)
		fetch_chunks(container_of(s, struct cache_source, s), chunk,
			     (size_t)div_round_up(off + len, KEPT_CHUNK_BYTES) -
				     chunk,
			     false);
}

static int cache_find_hole(struct source *s, uint64_t off, uint64_t len,
			   bool *ret_hole, uint64_t *ret_len)
{
	return source_find_hole(container_of(s, struct cache_source, s)->inner,
				off, len, ret_hole, ret_len);
}

static void cache_identify(const struct source *s, struct source_identity *ret)
{
	source_identity(container_of(s, struct cache_source, s)->inner, ret);
}

static void cache_free(struct source *s)
{
	struct cache_source *src = container_of(s, struct cache_source, s);

	fill_remove(src);
	cached_put(src->c);
	source_unref(src->inner);
	free(src);
}

static const struct source_ops cache_source_ops = {
	.name = "disk-cache",
	.nested = true,
	.read_all = cache_read_all,
	.read_now = cache_read_now,
	.find_hole = cache_find_hole,
	.prefetch = cache_prefetch,
	.identify = cache_identify,
	.free = cache_free,
};

/* ---- objects that come as a whole ---- */

/* What came of the chunk that is under way. */
struct whole {
	struct cached *c;
	uint8_t *buf; /* KEPT_CHUNK_BYTES */
	size_t chunk, used;
};

static int keep_chunk(struct whole *w)
{
	struct cache_flight *f;
	bool ours, ok = true;

	f = board_chunk(w->c, w->chunk, &ours);
	if (f && ours) {
		cache_note_fetched(w->used, false);
		ok = store(w->c, w->chunk, w->buf) ||
		     atomic_load(&w->c->unchecked);
		land_chunk(w->c, f, ok ? 0 : -EAGAIN);
	} else if (f) {
		await_chunk(w->c, f);
	}
	w->chunk++;
	w->used = 0;
	return ok ? 0 : -ENOSPC;
}

static int take_whole(void *opaque, const void *data, size_t len)
{
	struct whole *w = opaque;
	size_t n;
	int r = 0;

	for (; len && r >= 0; len -= n) {
		n = min_size(len,
			     kept_chunk_bytes(&w->c->f, w->chunk) - w->used);
		memcpy(w->buf + w->used, data, n);
		data = (const uint8_t *)data + n;
		w->used += n;
		if (w->used == kept_chunk_bytes(&w->c->f, w->chunk))
			r = keep_chunk(w);
	}
	return r;
}

int disk_cache_keep_whole(struct source *src,
			  int (*take)(struct source *inner,
				      int (*each)(void *opaque,
						  const void *data, size_t len),
				      void *opaque, struct error *err),
			  struct error *err)
{
	struct cache_source *s = container_of(src, struct cache_source, s);
	struct whole w = { .c = s->c };
	int r;

	if (!cache_is_usable(s->c))
		return error_set(err, -EBUSY, 0,
				 "another process keeps it, and its server "
				 "gives no ranges");
	atomic_store(&s->c->pinned, true);
	if (kept_count(&s->c->f) == s->c->f.n_chunks)
		return 0;
	if (!disk_cache_holds_all())
		return error_set(err, -ENOSPC, 0,
				 "its server gives no ranges, and all of it is "
				 "more than cache-size= may hold");
	w.buf = malloc(KEPT_CHUNK_BYTES);
	if (!w.buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = take(s->inner, take_whole, &w, err);
	free(w.buf);
	if (r >= 0 && cache_check(s->c) < 0)
		return error_set(err, -EIO, 0, "it is another image");
	return r == -ENOSPC
		       ? error_set(err, r, 0, "cache-dir: there is no room")
		       : r;
}

bool disk_cache_is_over(const struct source *src)
{
	return src->root->ops == &cache_source_ops;
}

void disk_cache_over(struct source **src)
{
	struct source_identity id;
	struct cache_source *s;

	if (!disk_cache_is_on())
		return;
	source_identity(*src, &id);
	if ((*src)->root != *src || !kept_can_be(&id))
		return;
	s = calloc(1, sizeof(*s));
	if (!s)
		return;
	s->c = cached_get(&id);
	if (!s->c) {
		free(s);
		return;
	}
	source_init(&s->s, &cache_source_ops, (*src)->bytes);
	s->s.read_bytes = KEPT_CHUNK_BYTES;
	s->inner = *src;
	s->fetch = fetch_behind;
	*src = &s->s;
	fill_add(s);
}
