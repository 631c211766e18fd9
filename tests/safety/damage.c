/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A sound image, damaged in many ways, one after the other: cut at a random
 * place, or with one bit of its metadata flipped. After each it must be
 * refused, or every byte must be right or EIO, the disk of the same size, on as
 * many layers. damage.py makes the images and judges what is said here.
 *
 *	damage FORMAT IMAGE FILE TRUTH cut|flip SEED COUNT
 *
 * FILE is the file that is damaged: IMAGE itself, or one that it leads to. It
 * is written in place and put right afterwards. TRUTH is what the disk reads
 * as. Metadata are what the image's map does not name as data, without sectors
 * that are all zero.
 *
 * Tells a line for each damage that went wrong, and one at the end:
 *
 *	size|parent|zeroes|other|silent PLACE BIT found|unseen DETAIL
 *	done COUNT refused N damaged N right N of N (bytes of metadata)
 *
 * found: check() has something to say of the damaged image. "silent" is a cut
 * that loses something of which check() finds nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/cache.h"
#include "formats/image.h"

#define READ_BYTES   (256U << 10)
#define SECTOR_BYTES 512U

/* A run of the disk that lies in the file that is damaged. */
struct piece {
	uint64_t off, bytes, host_off;
};

struct harness {
	const char *image;
	struct open_options options;
	int fd; /* of the file that is damaged */
	uint8_t *file;
	size_t file_bytes;
	uint8_t *truth;
	uint64_t truth_bytes;
	unsigned int depth; /* of the sound chain */
	uint32_t *meta; /* places of bytes of metadata */
	size_t n_meta;
	struct piece *map; /* of the sound disk */
	size_t n_map, map_room;
	uint64_t unit_bytes;
	uint64_t seed;
	bool cutting;
	uint64_t end; /* where it was cut */
	unsigned int refused, damaged, right, judged;
};

#define DIE(...)                              \
	do {                                  \
		fprintf(stderr, __VA_ARGS__); \
		fputc('\n', stderr);          \
		exit(2);                      \
	} while (0)

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static uint8_t *read_file(const char *path, uint64_t *ret_bytes)
{
	int fd = open(path, O_RDONLY);
	uint8_t *buf;
	struct stat st;
	size_t got = 0;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		DIE("%s: %s", path, strerror(errno));
	buf = malloc((size_t)st.st_size + 1);
	while (buf && (n = read(fd, buf + got, (size_t)st.st_size - got)) > 0)
		got += (size_t)n;
	if (!buf || got != (size_t)st.st_size)
		DIE("%s: cannot be read", path);
	close(fd);
	*ret_bytes = got;
	return buf;
}

static void put(const struct harness *h, uint64_t off, uint64_t bytes)
{
	ssize_t n = pwrite(h->fd, h->file + off, bytes, (off_t)off);

	if (n != (ssize_t)bytes)
		DIE("write: %s", strerror(errno));
}

static void say_nothing(struct check_report *r, const char *line)
{
}

static void say_aloud(struct check_report *r, const char *line)
{
	fprintf(stderr, "check: %s\n", line);
}

/* Does check() find anything in the layers? */
static bool is_found(const struct chain *c,
		     void (*say)(struct check_report *r, const char *line))
{
	struct error err = { 0 };
	unsigned int i;

	for (i = 0; i < c->depth; i++) {
		struct layer *l = c->layers[i];
		struct check_report r = { .say = say };

		if (l->ops->check && l->ops->check(l, &r, &err) < 0)
			return true;
		if (r.corruptions || r.leaks || r.check_errors)
			return true;
	}
	return false;
}

static const char *compare(const struct harness *h, const uint8_t *got,
			   uint64_t off, size_t len, uint64_t *ret_at)
{
	const uint8_t *want = h->truth + off;
	size_t i;

	if (!memcmp(got, want, len))
		return NULL;
	for (i = 0; got[i] == want[i]; i++)
		;
	*ret_at = off + i;
	return got[i] ? "other" : "zeroes";
}

/*
 * A qcow2 file may end inside a cluster: what the disk has at @at lay in the
 * cluster that was cut. *len becomes what is to be passed by from @off on.
 */
static bool is_ragged(const struct harness *h, uint64_t at, size_t *len,
		      uint64_t off)
{
	uint64_t end, host;
	size_t i;

	if (!h->cutting || !h->unit_bytes || strcmp(h->options.format, "qcow2"))
		return false;
	end = round_up(h->end, h->unit_bytes);
	for (i = 0; i < h->n_map; i++) {
		const struct piece *p = &h->map[i];

		if (at < p->off || at - p->off >= p->bytes)
			continue;
		host = p->host_off + (at - p->off);
		if (host < h->end || host >= end)
			return false;
		*len = (size_t)min_u64(*len, at - off + (end - host));
		return true;
	}
	return false;
}

/* Reads the disk. NULL: each byte is right, or EIO. */
static const char *judge_bytes(const struct harness *h, struct image *img,
			       uint64_t *ret_at, uint64_t *ret_lost)
{
	static uint8_t buf[READ_BYTES];
	uint64_t off = 0;

	*ret_lost = 0;
	while (off < img->bytes) {
		uint64_t max = min_u64(READ_BYTES, img->bytes - off);
		const char *what;
		struct extent e;
		size_t len;
		int r = chain_map(&img->chain, off, max, &e, NULL);

		if (r < 0)
			DIE("map at %" PRIu64 ": %d", off, r);
		len = (size_t)min_u64(e.len, max);
		if (e.kind == EXTENT_DAMAGED ||
		    image_read(img, buf, len, off, NULL) < 0) {
			*ret_lost += len;
		} else {
			what = compare(h, buf, off, len, ret_at);
			if (what && !is_ragged(h, *ret_at, &len, off))
				return what;
		}
		off += len;
	}
	return NULL;
}

static void judge(struct harness *h, uint64_t place, unsigned int bit)
{
	CLEANUP(image_unrefp) struct image *img = NULL;
	uint64_t at = 0, lost = 0;
	const char *what = NULL;
	char detail[128] = "";

	h->judged++;
	if (image_open(h->image, &h->options, &img, NULL) < 0) {
		h->refused++;
		return;
	}
	if (img->chain.depth < h->depth) {
		what = "parent";
	} else if (img->bytes != h->truth_bytes) {
		what = "size";
		snprintf(detail, sizeof(detail), "%" PRIu64 " bytes",
			 img->bytes);
	} else {
		what = judge_bytes(h, img, &at, &lost);
		if (what)
			snprintf(detail, sizeof(detail), "disk at %" PRIu64,
				 at);
	}
	if (!what && h->cutting && lost && !is_found(&img->chain, say_nothing))
		what = "silent";
	if (!what) {
		*(lost ? &h->damaged : &h->right) += 1;
		return;
	}
	printf("%s %" PRIu64 " %u %s %s\n", what, place, bit,
	       is_found(&img->chain, say_nothing) ? "found" : "unseen", detail);
}

static void flip(struct harness *h)
{
	uint64_t place = h->meta[next_random(&h->seed) % h->n_meta];
	unsigned int bit = (unsigned int)(next_random(&h->seed) % 8);

	h->file[place] ^= (uint8_t)(1U << bit);
	put(h, place, 1);
	judge(h, place, bit);
	h->file[place] ^= (uint8_t)(1U << bit);
	put(h, place, 1);
}

static void cut(struct harness *h)
{
	uint64_t end;

	if (!h->file_bytes)
		return;
	end = next_random(&h->seed) % h->file_bytes;

	if (ftruncate(h->fd, (off_t)end) < 0)
		DIE("truncate: %s", strerror(errno));
	h->end = end;
	judge(h, end, 0);
	put(h, end, h->file_bytes - end);
}

/* Remembers where @e lies in the file; what lies there is no metadata. */
static void take_extent(struct harness *h, bool *meta, uint64_t off,
			const struct extent *e, const struct stat *st)
{
	uint64_t bytes = e->kind == EXTENT_DATA ? e->len : e->comp_bytes;
	struct source_identity src;

	if (e->kind != EXTENT_DATA && e->kind != EXTENT_COMPRESSED)
		return;
	source_identity(e->src, &src);
	if (!identity_is_file(&src, st))
		return;
	memset(meta + e->host_off, false, bytes);
	if (h->n_map == h->map_room) {
		h->map_room = 2 * h->map_room + 64;
		h->map = reallocarray(h->map, h->map_room, sizeof(*h->map));
		if (!h->map)
			DIE("out of memory");
	}
	h->map[h->n_map++] = (struct piece){ off, e->len, e->host_off };
}

/* The bytes that are no data, of sectors in which there is something. */
static void list_metadata(struct harness *h, const bool *meta)
{
	static const uint8_t zeroes[SECTOR_BYTES];
	size_t at, len, i;

	for (at = 0; at < h->file_bytes; at += len) {
		len = (size_t)min_u64(SECTOR_BYTES, h->file_bytes - at);
		if (!memcmp(h->file + at, zeroes, len))
			continue;
		for (i = at; i < at + len; i++)
			if (meta[i])
				h->meta[h->n_meta++] = (uint32_t)i;
	}
}

static void find_metadata(struct harness *h, const struct image *img)
{
	bool *meta = malloc(h->file_bytes + 1);
	uint64_t off = 0;
	struct stat st;
	struct extent e;

	h->meta = calloc(h->file_bytes + 1, sizeof(*h->meta));
	if (!meta || !h->meta || fstat(h->fd, &st) < 0)
		DIE("out of memory");
	memset(meta, true, h->file_bytes);
	while (off < img->bytes) {
		if (chain_map(&img->chain, off, img->bytes - off, &e, NULL) < 0)
			DIE("the sound image has no map at %" PRIu64, off);
		take_extent(h, meta, off, &e, &st);
		off += e.len;
	}
	list_metadata(h, meta);
	free(meta);
}

/* It reads as it should, and check() has nothing to say. */
static void look_at_sound(struct harness *h)
{
	CLEANUP(image_unrefp) struct image *img = NULL;
	struct error err = { 0 };
	uint64_t at = 0, lost = 0;
	const char *what;

	if (image_open(h->image, &h->options, &img, &err) < 0)
		DIE("the sound image is refused: %s", err.msg);
	if (img->bytes != h->truth_bytes)
		DIE("the sound image has %" PRIu64 " bytes, not %" PRIu64,
		    img->bytes, h->truth_bytes);
	h->depth = img->chain.depth;
	h->unit_bytes = img->chain.layers[0]->unit_bytes;
	what = judge_bytes(h, img, &at, &lost);
	if (what || lost)
		DIE("the sound image is not: %s at %" PRIu64, what ? what : "",
		    at);
	if (is_found(&img->chain, say_aloud))
		DIE("check finds something in the sound image");
	find_metadata(h, img);
}

int main(int argc, char **argv)
{
	struct harness h = { 0 };
	unsigned long count;
	uint64_t bytes;

	if (argc != 8)
		DIE("damage FORMAT IMAGE FILE TRUTH cut|flip SEED COUNT");
	h.options.format = argv[1];
	h.options.key = (const uint8_t *)"secret";
	h.options.key_bytes = 6;
	h.image = argv[2];
	h.file = read_file(argv[3], &bytes);
	h.file_bytes = bytes;
	h.truth = read_file(argv[4], &h.truth_bytes);
	h.cutting = !strcmp(argv[5], "cut");
	h.seed = strtoull(argv[6], NULL, 0);
	h.fd = open(argv[3], O_RDWR);
	if (h.fd < 0)
		DIE("%s: %s", argv[3], strerror(errno));
	cache_configure(8 << 20);
	look_at_sound(&h);
	for (count = strtoul(argv[7], NULL, 0); count; count--) {
		if (h.cutting)
			cut(&h);
		else if (h.n_meta)
			flip(&h);
	}
	printf("done %u refused %u damaged %u right %u of %zu\n", h.judged,
	       h.refused, h.damaged, h.right, h.n_meta);
	close(h.fd);
	free(h.file);
	free(h.truth);
	free(h.meta);
	free(h.map);
	return 0;
}
