/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file, all numbers little endian:
 *
 *	"PLTRIDX2" | key of 80 bytes | size unpacked (8), memory of a decoder (8),
 *	spacing (8), checkpoints (8) | checkpoints: in (8), out (8), state (4),
 *	bytes of the window (4) | XXH64 of all before (8) | windows, each and its
 *	XXH64 (8)
 *
 * What is before the windows is read when the stream is opened, and a window when
 * somebody begins there. It is written under another name and renamed, and not synced: one that is cut
 * has another sum. Its name is the digest of the key.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/cursor.h"
#include "formats/new-file.h"
#include "formats/streams/kept.h"
#include "formats/streams/xxh.h"
#include "iouring/own-folder.h"
#include "iouring/util.h"

#define MAGIC	    "PLTRIDX2"
#define KEY_BYTES   80U
#define HEAD_BYTES  (8U + KEY_BYTES + 32U)
#define ENTRY_BYTES 24U
#define SUM_BYTES   8U
#define ENDS_BYTES  (64U << 10)
#define WINDOW_MAX  (128U << 10)
#define NAME_BYTES  (16U + sizeof(".index"))
#define ENTRIES_MAX (STREAM_INDEX_BYTES_MAX / ENTRY_BYTES)

static int folder = -1;
static char *folder_path;

/* ---- the folder ---- */

int kept_configure(const char *path, struct error *err)
{
	CLEANUP(closep) int dir = -1;
	int fd, r = own_folder_open(AT_FDCWD, path, 022, &dir, err);

	if (r >= 0)
		r = own_folder_open(dir, "index", 022, &fd, err);
	if (r < 0) {
		error_prefix(err, "cache-dir");
		return r;
	}
	closep(&folder);
	free(folder_path);
	folder = fd;
	if (asprintf(&folder_path, "%s/index", path) < 0)
		folder_path = NULL;
	return folder_path ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

/* ---- keys ---- */

static void put64(uint8_t **p, uint64_t v)
{
	v = htole64(v);
	memcpy(*p, &v, sizeof(v));
	*p += sizeof(v);
}

static void put32(uint8_t **p, uint32_t v)
{
	v = htole32(v);
	memcpy(*p, &v, sizeof(v));
	*p += sizeof(v);
}

static bool digest_ends(struct source *src, uint64_t *ret)
{
	size_t n = (size_t)min_u64(src->bytes, ENDS_BYTES);
	CLEANUP(freep) uint8_t *buf = malloc(2 * n + 1);
	bool ok = buf && source_read(src, buf, n, 0, NULL) >= 0 &&
		  source_read(src, buf + n, n, src->bytes - n, NULL) >= 0;

	if (ok)
		*ret = xxh64(buf, 2 * n);
	return ok;
}

bool kept_key(const struct stream *s, struct kept_key *ret)
{
	*ret = (struct kept_key){ .off = s->src->root_off,
				  .bytes = s->src->bytes };
	if (folder < 0 || !source_file(s->src))
		return false;
	source_identity(s->src, &ret->identity);
	return digest_ends(s->src, &ret->ends);
}

static void write_key(const struct stream *s, const struct kept_key *k,
		      uint8_t *ret)
{
	uint8_t *p = ret;
	uint64_t form = 0;

	memcpy(&form, s->ops->name, min_size(strlen(s->ops->name), 8));
	put64(&p, k->identity.dev);
	put64(&p, k->identity.ino);
	put64(&p, (uint64_t)k->identity.mtime.tv_sec);
	put64(&p, (uint64_t)k->identity.mtime.tv_nsec);
	put64(&p, k->identity.bytes);
	put64(&p, k->off);
	put64(&p, k->bytes);
	put64(&p, k->ends);
	put64(&p, form);
	put64(&p, s->piece_bytes);
}

/* @digest: of the key. */
static void write_name(uint64_t digest, char ret[NAME_BYTES])
{
	snprintf(ret, NAME_BYTES, "%016llx.index", (unsigned long long)digest);
}

/* ---- reading ---- */

/* The file @name; -1: it is not there. */
static int open_file(const char *name, uint64_t *ret_bytes)
{
	CLEANUP(closep)
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -1;
	*ret_bytes = (uint64_t)st.st_size;
	return TAKE_FD(fd);
}

static bool read_at(int fd, uint8_t *buf, size_t bytes, uint64_t at)
{
	ssize_t n = 1;

	for (; bytes && n > 0;
	     buf += n, bytes -= (size_t)n, at += (uint64_t)n) {
		n = pread(fd, buf, bytes, (off_t)at);
		if (n < 0)
			return false;
	}
	return !bytes;
}

/* What is before the windows, to be freed, and how many checkpoints there are. NULL: it
 * is not of @key, or wrong. */
static uint8_t *read_head(int fd, uint64_t bytes, const uint8_t *key,
			  size_t *ret_bytes, uint64_t *ret_n)
{
	CLEANUP(freep) uint8_t *buf = malloc(HEAD_BYTES);
	struct cursor c = { .buf = buf, .len = HEAD_BYTES };
	uint8_t *all;
	uint64_t n;

	if (!buf || bytes < HEAD_BYTES + SUM_BYTES ||
	    !read_at(fd, buf, HEAD_BYTES, 0) || memcmp(buf, MAGIC, 8) ||
	    memcmp(buf + 8, key, KEY_BYTES))
		return NULL;
	n = cursor_le64_at(&c, HEAD_BYTES - 8);
	if (n > ENTRIES_MAX ||
	    n > (bytes - HEAD_BYTES - SUM_BYTES) / ENTRY_BYTES)
		return NULL;
	*ret_bytes = HEAD_BYTES + (size_t)n * ENTRY_BYTES;
	all = realloc(buf, *ret_bytes + SUM_BYTES);
	if (!all)
		return NULL;
	buf = all;
	c = (struct cursor){ .buf = buf, .len = *ret_bytes + SUM_BYTES };
	if (!read_at(fd, buf + HEAD_BYTES, c.len - HEAD_BYTES, HEAD_BYTES) ||
	    cursor_le64_at(&c, *ret_bytes) != xxh64(buf, *ret_bytes))
		return NULL;
	*ret_n = n;
	return TAKE_PTR(buf);
}

/* The @n checkpoints, each of which must be where one can be, and their windows up
 * to the file's end. */
static bool take_list(struct stream *s, struct cursor *c, uint64_t n,
		      uint64_t bytes)
{
	uint64_t windows = c->len, i;
	struct checkpoint last = { 0 };

	for (i = 0; i < n; i++) {
		size_t at = HEAD_BYTES + (size_t)i * ENTRY_BYTES;
		struct checkpoint ck = {
			.in = cursor_le64_at(c, at),
			.out = cursor_le64_at(c, at + 8),
			.state = cursor_le32_at(c, at + 16),
			.window_bytes = cursor_le32_at(c, at + 20),
		};

		if (ck.in < last.in || ck.out < last.out || (!i && ck.out) ||
		    ck.out > s->base.bytes || ck.in / 8 > s->src->bytes ||
		    ck.window_bytes > WINDOW_MAX || (!i && ck.window_bytes))
			return false;
		if (ck.window_bytes) {
			ck.kept_at = windows;
			windows += ck.window_bytes + SUM_BYTES;
		}
		last = ck;
		if (stream_index_add(&s->index, &ck, NULL) < 0)
			return false;
	}
	return windows == bytes && !n == !s->base.bytes;
}

/* From the file, which the index has from now on. */
static bool take(struct stream *s, const uint8_t *key, int fd, uint64_t bytes)
{
	size_t head_bytes = 0, at = 8 + KEY_BYTES;
	uint64_t n = 0;
	CLEANUP(freep)
	uint8_t *buf = read_head(fd, bytes, key, &head_bytes, &n);
	struct cursor c = { .buf = buf, .len = head_bytes + SUM_BYTES };

	s->index.kept = true;
	s->index.kept_fd = fd;
	s->index.kept_name = xxh64(key, KEY_BYTES);
	if (!buf)
		return false;
	s->base.bytes = cursor_le64_at(&c, at);
	s->decoder_bytes = cursor_le64_at(&c, at + 8);
	return stream_check_bytes(s->base.bytes, NULL) >= 0 &&
	       stream_check_memory(s, s->decoder_bytes, "", NULL) >= 0 &&
	       take_list(s, &c, n, bytes);
}

bool kept_load(struct stream *s, const struct kept_key *key)
{
	uint8_t own[KEY_BYTES];
	char name[NAME_BYTES];
	uint64_t bytes = 0;
	int fd;

	write_key(s, key, own);
	write_name(xxh64(own, KEY_BYTES), name);
	fd = open_file(name, &bytes);
	if (fd < 0)
		return false;
	/* It was used just now. */
	futimens(fd, NULL);
	if (take(s, own, fd, bytes))
		return true;
	stream_index_done(&s->index);
	s->base.bytes = 0;
	unlinkat(folder, name, 0);
	return false;
}

void kept_drop(const struct stream *s)
{
	char name[NAME_BYTES];

	write_name(s->index.kept_name, name);
	unlinkat(folder, name, 0);
}

/* ---- writing ---- */

static void put_window(uint8_t **p, const struct checkpoint *ck)
{
	memcpy(*p, ck->window, ck->window_bytes);
	*p += ck->window_bytes;
	put64(p, xxh64(ck->window, ck->window_bytes));
}

/* The file, to be freed; NULL: no memory. */
static uint8_t *write_all(const struct stream *s, const uint8_t *key,
			  uint64_t unpacked, size_t *ret_bytes)
{
	const struct stream_index *x = &s->index;
	size_t bytes = HEAD_BYTES + x->n * ENTRY_BYTES + SUM_BYTES, i;
	uint8_t *buf, *p;

	for (i = 0; i < x->n; i++)
		if (x->list[i].window_bytes)
			bytes += x->list[i].window_bytes + SUM_BYTES;
	p = buf = malloc(bytes);
	if (!buf)
		return NULL;
	memcpy(p, MAGIC, 8);
	memcpy(p + 8, key, KEY_BYTES);
	p += 8 + KEY_BYTES;
	put64(&p, unpacked);
	put64(&p, s->decoder_bytes);
	put64(&p, x->spacing);
	put64(&p, x->n);
	for (i = 0; i < x->n; i++) {
		put64(&p, x->list[i].in);
		put64(&p, x->list[i].out);
		put32(&p, x->list[i].state);
		put32(&p, x->list[i].window_bytes);
	}
	put64(&p, xxh64(buf, (size_t)(p - buf)));
	for (i = 0; i < x->n; i++)
		if (x->list[i].window_bytes)
			put_window(&p, &x->list[i]);
	*ret_bytes = bytes;
	return buf;
}

/* The one that was used longest ago; false: there is none. */
static bool oldest(DIR *d, char ret[NAME_BYTES], uint64_t *ret_all)
{
	struct timespec best = { 0 };
	struct dirent *e;
	struct stat st;

	*ret_all = 0;
	*ret = '\0';
	rewinddir(d);
	while ((e = readdir(d))) {
		if (strlen(e->d_name) != NAME_BYTES - 1 ||
		    fstatat(folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		*ret_all += (uint64_t)st.st_size;
		if (*ret && (st.st_mtim.tv_sec > best.tv_sec ||
			     (st.st_mtim.tv_sec == best.tv_sec &&
			      st.st_mtim.tv_nsec >= best.tv_nsec)))
			continue;
		best = st.st_mtim;
		memcpy(ret, e->d_name, NAME_BYTES);
	}
	return *ret;
}

static void make_room(uint64_t bytes)
{
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	char name[NAME_BYTES];
	uint64_t all;

	if (!d) {
		closep(&fd);
		return;
	}
	while (oldest(d, name, &all) && all + bytes > KEPT_BYTES_MAX &&
	       !unlinkat(folder, name, 0))
		;
	closedir(d);
}

static bool write_file(int fd, const uint8_t *buf, size_t bytes)
{
	ssize_t n = 1;

	for (; bytes && n > 0; buf += n, bytes -= (size_t)n) {
		n = write(fd, buf, bytes);
		if (n < 0)
			return false;
	}
	return !bytes;
}

void kept_save(const struct stream *s, const struct kept_key *key,
	       uint64_t unpacked)
{
	CLEANUP(new_file_done) struct new_file file = { .fd = -1 };
	CLEANUP(freep) char *path = NULL;
	CLEANUP(freep) uint8_t *buf = NULL;
	struct kept_key now;
	uint8_t own[KEY_BYTES];
	char name[NAME_BYTES];
	size_t bytes = 0;

	if (!kept_key(s, &now) || now.ends != key->ends ||
	    !identity_is_unchanged(&now.identity, &key->identity))
		return;
	write_key(s, key, own);
	write_name(xxh64(own, KEY_BYTES), name);
	buf = write_all(s, own, unpacked, &bytes);
	if (!buf || asprintf(&path, "%s/%s", folder_path, name) < 0) {
		path = NULL;
		return;
	}
	make_room(bytes);
	if (new_file_begin(path, &file, NULL) >= 0 &&
	    write_file(file.fd, buf, bytes))
		new_file_name(&file, NULL);
}
