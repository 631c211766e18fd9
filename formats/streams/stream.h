/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stream: a file that is compressed as a whole, read at random. It is a source
 * over the source of its bytes, and knows nothing of what is in it.
 *
 * A form (gzip, xz ...) tells where in its bytes decoding can begin: checkpoints.
 * A decoder begins at one and goes on; decoders that stand idle
 * are kept for whoever reads on. What is decoded is kept in the process's cache
 * in pieces of one size. The index of checkpoints is made when the stream is
 * opened, and does not change: by the form's own tables, where it has some, or by
 * decoding all of it once. Where something in the stream tells how much it is, it
 * is read while it is still decoded, and the index grows (pass.c).
 *
 * A new form is one file here with one const struct stream_ops, and one line in
 * open.c.
 */
#ifndef FORMATS_STREAMS_STREAM_H
#define FORMATS_STREAMS_STREAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/streams/input.h"
#include "iouring/error.h"
#include "iouring/source.h"

/* ---- limits ---- */

#define STREAM_BYTES_MAX	(64ULL << 40) /* of what comes out */
#define STREAM_INDEX_BYTES_MAX	(16U << 20) /* of memory, of one index */
#define STREAM_DECODER_MAX	(68ULL << 20) /* bytes of all decoders' memory */
#define STREAM_INNER_MAX	(12ULL << 20) /* the same, of streams in streams */
#define STREAM_DEPTH_MAX	8U /* streams and containers in each other */
#define STREAM_RATIO_MAX	1100U /* by which a stream may grow that must be */
#define STREAM_RATIO_ALONE	32U /* the same, of what anybody may hand us */
#define STREAM_RATIO_FREE_BYTES (1ULL << 30) /* decoded once to be known */

#define STREAM_PIECE_BYTES (64U << 10) /* unless the form says another */

#define STREAM_LATER_BYTES \
	(1U << 20) /* of one that is known at once if shorter */
#define STREAM_HEAD_BYTES (64U << 10) /* of what comes out, to be looked at */

/* ---- the index ---- */

/* Where decoding can begin. Both offsets never fall from one to the next. */
struct checkpoint {
	uint64_t in; /* of the stream's bytes; of bzip2 of its bits */
	uint64_t out; /* of what is decoded */
	uint32_t state; /* the form's own: what it must know there */
	uint32_t window_bytes; /* of @window */
	union {
		uint8_t *window; /* what was decoded before, see window.c;
				    NULL: nothing of it is needed */
		uint64_t kept_at; /* of an index that is kept: where in it */
	};
};

#define CHECKPOINT_STAYS (1U << 31) /* of state: is not thinned out */

struct stream_index {
	struct checkpoint *list; /* the first is at 0 */
	size_t n;
	uint64_t bytes; /* of memory */
	uint64_t spacing; /* of thinned ones: no closer than this */
	bool kept; /* its windows are in kept_fd, each with its XXH64 behind it */
	int kept_fd;
	atomic_bool wrong; /* one of them */
	uint64_t kept_name; /* of that file, see kept.c */
};

/* Adds one behind all others, whose window it takes over, also on failure. When
 * there are too many, every second is dropped. */
int stream_index_add(struct stream_index *x, const struct checkpoint *ck,
		     struct error *err);
/* The last one at or before @out. Only of an index that has some. */
size_t stream_index_find(const struct stream_index *x, uint64_t out);
/* The window of @ck, of an index that is kept, to be freed. NULL: no memory, or it is
 * wrong, as is told by x->wrong. */
uint8_t *stream_index_window(struct stream_index *x,
			     const struct checkpoint *ck);
void stream_index_done(struct stream_index *x);

/* ---- what a form is ---- */

struct stream;
struct decoder;

struct stream_ops {
	const char *name; /* "gzip" */
	const char *what; /* "a gzip stream" */

	/* Does what begins with these bytes look like one? */
	bool (*probe)(const uint8_t *head, size_t bytes);

	/* Loads what decodes it. 0, or -ENOTSUP: it is not installed. */
	int (*need)(struct error *err);

	/*
	 * Optional: fills s->index and s->base.bytes by what tables tell, all
	 * else that the form needs. Returns 1, 0 where nothing tells it and all
	 * is to be decoded, or a negative errno.
	 */
	int (*look)(struct stream *s, struct error *err);

	/* Optional: instead of the index, the last place at or before @out. */
	int (*find)(struct stream *s, uint64_t out, struct checkpoint *ret,
		    struct error *err);

	/* Optional: see source_ops.find_hole. */
	int (*find_hole)(struct stream *s, uint64_t off, uint64_t len,
			 bool *ret_hole, uint64_t *ret_len);

	/*
	 * Optional: what the stream says of its size before it is decoded, which
	 * nothing need be true of. *ret, and of how many bits of it. False: it says
	 * nothing.
	 */
	bool (*hint)(struct stream *s, uint64_t *ret, unsigned int *ret_bits);

	/*
	 * Makes d->state, if it is NULL, and has it begin at @from; d->in is
	 * there and d->out is set by the caller.
	 */
	int (*start)(struct decoder *d, const struct checkpoint *from,
		     struct error *err);

	/*
	 * Decodes at most @len > 0 bytes, which are those at d->out, and sets
	 * *ret, at least 1; 0: the stream has ended. Tells of each place where
	 * decoding could begin by decoder_pass(). Damage is -EBADMSG.
	 */
	int (*step)(struct decoder *d, uint8_t *out, size_t len, size_t *ret,
		    struct error *err);

	void (*stop)(struct decoder *d); /* frees d->state; may be NULL */
};

struct pass;

struct stream {
	struct source base;
	const struct stream_ops *ops;
	struct source *src; /* its bytes */
	pthread_mutex_t lock; /* of index, while it grows; see pass.h */
	atomic_bool grows; /* index, whose windows may go away, too */
	struct pass *pass; /* NULL: all was known when it was opened */
	char *path; /* of what it lies in, for messages; or NULL */
	unsigned int level; /* so many streams lie below */
	uint32_t piece_bytes; /* a power of two */
	uint64_t decoder_bytes; /* of memory that a decoder may take */
	uint64_t pass_bytes; /* what one takes besides that decodes all of it */
	unsigned int ratio_max; /* by which it may grow in a pass */
	struct stream_index index;
	void *form; /* the form's own; free()d */
	bool was_dear; /* look() read all of it */
};

/* One thread's at a time. */
struct decoder {
	struct stream *s;
	struct stream_in in;
	void *state; /* of the form */
	uint64_t out; /* comes next */
	size_t next; /* checkpoint, the first behind where it began */
	bool noting; /* the index is being made */
	bool cut; /* it ended where it should not */
	uint64_t sum_from; /* of d->out: what comes from here has one sum */
	bool whole; /* all of it is decoded, from its beginning: sums are compared */

	/* decoders.c's */
	struct decoder *older;
	bool busy;
	uint64_t goal; /* where it will stand when it is not busy */
	uint64_t bytes; /* of memory, counted */
	uint8_t *piece; /* for what is passed by; NULL: none yet */
};

/*
 * For forms: at d->out decoding can begin, at @in. While the index is made it is
 * noted, if it is wanted; else it is compared. -EBADMSG: the index says
 * otherwise.
 */
int decoder_pass(struct decoder *d, uint64_t in, uint32_t state,
		 struct error *err);

/* For these two: adds to the index that @d makes. */
int decoder_note(struct decoder *d, const struct checkpoint *ck,
		 struct error *err);

/*
 * The same for forms that must know what was decoded before: the last @bytes of
 * it at @window. Noted where the index so takes no more than a 256th of the data;
 * *want_at, 0 at first, is where it is worthwhile to ask again.
 */
int decoder_pass_window(struct decoder *d, uint64_t in, uint32_t state,
			const uint8_t *window, uint32_t bytes,
			uint64_t *want_at, struct error *err);

/* What a checkpoint knows, to @ret of @room bytes; *ret_bytes: how many. */
int checkpoint_window(const struct checkpoint *ck, uint8_t *ret, uint32_t room,
		      uint32_t *ret_bytes, struct error *err);

/* -EBADMSG, with what is wrong near d->in. */
int decoder_damaged(const struct decoder *d, const char *what,
		    struct error *err);

/* The same: the stream ends where more should come. */
int decoder_cut(struct decoder *d, struct error *err);

/* What a decoder of @s may take: -EFBIG, by @what, where @bytes are more. */
int stream_check_memory(const struct stream *s, uint64_t bytes,
			const char *what, struct error *err);

/* A size that comes out: -EFBIG over the limit. */
int stream_check_bytes(uint64_t bytes, struct error *err);

/* ---- opening ---- */

/* Nothing is known of where it ends: what is in it tells its own size. */
#define STREAM_OPEN_ENDED STREAM_BYTES_MAX

struct stream_options {
	bool sure; /* what is in it was declared: nothing else can be meant */
	unsigned int
		ratio_max; /* one that must be decoded to be known, and grows
				   by more, is -EFBIG */

	/*
	 * Optional: told what the stream begins with; @hint of @bits low bits is
	 * what it says of its own size, 0 bits: nothing. Returns the size of what
	 * is in it, or STREAM_OPEN_ENDED: then it is read while it is still
	 * decoded; 0: nothing tells it.
	 */
	uint64_t (*told)(void *opaque, const uint8_t *head, size_t bytes,
			 uint64_t hint, unsigned int bits);
	void *opaque;
	const char *path; /* for lines that are said later; may be NULL */
};

/* Which form? NULL: none. */
const struct stream_ops *stream_probe(const uint8_t *head, size_t bytes);

/*
 * Makes a source of @src, which is referred to, of what it decodes to. May take
 * long, where all is to be decoded once.
 */
int stream_open(struct source *src, const struct stream_ops *ops,
		const struct stream_options *o, struct source **ret,
		struct error *err);

/*
 * *src, the caller's, is replaced by what is in it, as long as that is a stream,
 * and *depth raised by how many there were. Unless o->sure, a stream that is a
 * disk, too, is -EBADMSG: a guest can write what begins one into its own disk.
 */
int stream_peel(struct source **src, const struct stream_options *o,
		unsigned int *depth, struct error *err);

/* Is @src what a stream decodes to? */
bool source_is_stream(const struct source *src);

/* ---- check.c ---- */

struct stream_check {
	/* Set by the caller: told of each place that is damaged, one line; and how
	 * far it is: other than 0 ends it. */
	void (*say)(struct stream_check *k, const char *line);
	int (*tell)(struct stream_check *k, uint64_t done, uint64_t total);

	uint64_t damaged; /* places */
	bool has_digest; /* one is told of all of it, and it has it */
};

/*
 * Decodes all of @src, which is a stream or lies in one, and keeps nothing of it.
 * 0: it was all looked at; other than 0: tell()'s.
 */
int stream_check(struct source *src, struct stream_check *k, struct error *err);

/* What @src is decoded from in the end, or itself: perhaps a file. */
const struct source *stream_bottom(const struct source *src);

/* open.c: the forms */
extern const struct stream_ops stream_gzip, stream_xz, stream_zstd, stream_lz4,
	stream_bzip2;

/* ---- decoders.c ---- */

/* Before the first stream: @say is told now and then how far one is that must be
 * decoded when it is opened. NULL: nobody is. */
void streams_configure(void (*say)(const char *line));

/*
 * Decodes [@off, @off + @len) of @s to @out. What is passed by on the way is
 * put into the cache, where that pays. May wait for decoders that others use.
 */
int stream_decode(struct stream *s, uint64_t off, uint8_t *out, size_t len,
		  struct error *err);

/* Tells the administrator of @s: one line, without newline. */
void stream_say(const struct stream *s, const char *what);

/* How far @d is, which decodes all of it, now and then. *next: 0 at first. */
void stream_say_progress(const struct decoder *d, uint64_t *next);

/*
 * A decoder that makes the index of @s. Waits while so many are made that who
 * reads would have no memory. NULL: no memory.
 */
struct decoder *stream_pass_decoder(struct stream *s, struct error *err);

/*
 * Decodes all of d->s by @d, and fills its index. @passed is told of each @n bytes
 * at @data, which came before d->out, and ends it by another result than 0, which is returned.
 */
int stream_pass_run(struct decoder *d,
		    int (*passed)(void *opaque, const struct decoder *d,
				  const uint8_t *data, size_t n),
		    void *opaque, struct error *err);
void stream_pass_give(struct decoder *d); /* NULL is fine */

/*
 * Decodes all of @s once more, from its beginning, and compares what was noted of it.
 * @passed is told how much has been, and ends it by another result than 0, which is
 * returned. -EBADMSG, -EIO: it is damaged.
 */
int stream_walk(struct stream *s, int (*passed)(void *opaque, uint64_t done),
		void *opaque, struct error *err);

/* Does away with the idle decoders of @s, which nobody reads. */
void stream_forget(struct stream *s);

#endif
