/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "iouring/beneath.h"
#include "iouring/sources/kept-file.h"
#include "iouring/write.h"

#define TEXT_MAX     3900U
#define SUMMED_BYTES (KEPT_PAGE_BYTES - 8)
#define OPENS_MAX    8U /* where others remove it at the same time */
#define WORD_BITS    64U
#define WORDS_A_PAGE (SUMMED_BYTES / 8)

enum {
	MAGIC_AT = 0,
	CHUNK_AT = 8,
	TEXT_BYTES_AT = 12,
	BYTES_AT = 16,
	SALT_AT = 24,
	TEXT_AT = 32,
	SUM_AT = SUMMED_BYTES
};

static const uint8_t magic[8] = { 'P', 'L', 'T', 'K', 'E', 'P', 'T', '1' };

/* ---- what it is called ---- */

/* FNV-1a: tells what a crash left half done; nobody else writes here. */
static uint64_t sum(const void *data, size_t len, uint64_t seed)
{
	const uint8_t *p = data;
	uint64_t h = seed ^ 0xcbf29ce484222325ULL;

	while (len--)
		h = (h ^ *p++) * 0x100000001b3ULL;
	return h ^ h >> 32;
}

/* "NAME\0VERSION"; 0: it is too long. */
static size_t text_of(const struct source_identity *id, char ret[TEXT_MAX])
{
	size_t name = strlen(id->name), version = strlen(id->version);

	if (name + 1 + version > TEXT_MAX)
		return 0;
	memcpy(ret, id->name, name + 1);
	memcpy(ret + name + 1, id->version, version);
	return name + 1 + version;
}

bool kept_can_be(const struct source_identity *id)
{
	char text[TEXT_MAX];

	return id->kind == SOURCE_OBJECT && id->name && id->version &&
	       id->bytes && text_of(id, text) &&
	       div_round_up(id->bytes, KEPT_CHUNK_BYTES) <= KEPT_CHUNKS_MAX;
}

void kept_name(const struct source_identity *id, char ret[KEPT_NAME_BYTES])
{
	char text[TEXT_MAX];
	size_t len = text_of(id, text);

	snprintf(ret, KEPT_NAME_BYTES, "%016" PRIx64 "%016" PRIx64,
		 sum(text, len, id->bytes), sum(text, len, ~id->bytes));
}

/* ---- the files ---- */

static void file_name(char ret[64], const char *name, const char *end)
{
	snprintf(ret, 64, "%.32s.%s", name, end);
}

/* Nobody else could have written it, or can, and it is under this name alone. */
static bool is_ours(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) &&
	       st.st_uid == geteuid() && !(st.st_mode & 022) &&
	       st.st_nlink == 1;
}

static int lock_map(int fd)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (!fcntl(fd, F_OFD_SETLK, &l))
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
}

/* Opened and locked, the name could have gone to another file. */
static bool is_still_there(int dir, const char *name, int fd)
{
	struct stat a, b;

	return !fstat(fd, &a) && !fstatat(dir, name, &b, AT_SYMLINK_NOFOLLOW) &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Locked; -EAGAIN: once more. */
static int try_map(int dir, const char *name)
{
	CLEANUP(closep)
	int fd = open_beneath(dir, name,
			      O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600,
			      BENEATH_NO_LINKS);
	int r;

	if (fd == -ELOOP || fd == -EISDIR || (fd >= 0 && !is_ours(fd))) {
		/* It is none of ours. */
		return unlinkat(dir, name, 0) < 0 ? -errno : -EAGAIN;
	}
	if (fd < 0)
		return fd;
	r = lock_map(fd);
	if (r < 0)
		return r;
	return is_still_there(dir, name, fd) ? TAKE_FD(fd) : -EAGAIN;
}

static int open_map(int dir, const char *name, struct source **ret,
		    struct error *err)
{
	unsigned int i;
	int fd = -EAGAIN;

	for (i = 0; i < OPENS_MAX && fd == -EAGAIN; i++)
		fd = try_map(dir, name);
	if (fd < 0)
		return error_set(err, fd, 0, "%s: %s", name, errno_text(-fd));
	return file_source_adopt_rw(fd, 0, ret, err);
}

/* @anew: without what was there. Of the object's size, or anew it is. */
static int open_data(int dir, const struct kept_file *f, bool anew,
		     struct source **ret, struct error *err)
{
	char name[64];
	int fd;

	file_name(name, f->name, "data");
	if (anew)
		unlinkat(dir, name, 0);
	fd = open_beneath(dir, name,
			  O_RDWR | O_CLOEXEC | O_NONBLOCK |
				  (anew ? O_CREAT | O_EXCL : 0),
			  0600, BENEATH_NO_LINKS);
	if (fd < 0)
		return error_set(err, fd, 0, "%s: %s", name, errno_text(-fd));
	if (!is_ours(fd)) {
		close(fd);
		return error_set(err, -EPERM, 0, "%s: is not ours", name);
	}
	return file_source_adopt_rw(fd, 0, ret, err);
}

/* ---- the map ---- */

static size_t n_pages(const struct kept_file *f)
{
	return (size_t)div_round_up(f->n_chunks, KEPT_PAGE_CHUNKS);
}

static void put_le64(uint8_t *at, uint64_t v)
{
	v = htole64(v);
	memcpy(at, &v, 8);
}

static uint64_t get_le64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, 8);
	return le64toh(v);
}

static void make_header(const struct kept_file *f,
			const struct source_identity *id,
			uint8_t page[KEPT_PAGE_BYTES])
{
	uint32_t chunk = htole32(KEPT_CHUNK_BYTES), len;

	memset(page, 0, KEPT_PAGE_BYTES);
	memcpy(page + MAGIC_AT, magic, sizeof(magic));
	memcpy(page + CHUNK_AT, &chunk, 4);
	len = htole32((uint32_t)text_of(id, (char *)page + TEXT_AT));
	memcpy(page + TEXT_BYTES_AT, &len, 4);
	put_le64(page + BYTES_AT, f->bytes);
	put_le64(page + SALT_AT, f->salt);
	put_le64(page + SUM_AT, sum(page, SUM_AT, 0));
}

static uint64_t page_sum(const struct kept_file *f, size_t i,
			 const uint8_t *page)
{
	return sum(page, SUMMED_BYTES, f->salt + i * 0x9e3779b97f4a7c15ULL);
}

static void take_page(struct kept_file *f, size_t i, const uint8_t *page)
{
	size_t w = i * WORDS_A_PAGE, k;
	size_t words = (size_t)div_round_up(f->n_chunks, WORD_BITS);

	if (get_le64(page + SUM_AT) != page_sum(f, i, page))
		return;
	for (k = 0; k < WORDS_A_PAGE && w + k < words; k++)
		atomic_store(&f->bits[w + k], get_le64(page + k * 8));
	/* None but those that there are. */
	if (w + k == words && f->n_chunks % WORD_BITS)
		atomic_fetch_and(&f->bits[words - 1],
				 (1ULL << f->n_chunks % WORD_BITS) - 1);
}

/* Of the map, what can be read; false: it is not of this object. */
static bool read_map(struct kept_file *f, const struct source_identity *id)
{
	int fd = source_file(f->map)->fd;
	uint8_t page[KEPT_PAGE_BYTES], want[KEPT_PAGE_BYTES];
	size_t i;

	if (pread(fd, page, sizeof(page), 0) != sizeof(page))
		return false;
	f->salt = get_le64(page + SALT_AT);
	make_header(f, id, want);
	if (memcmp(page, want, sizeof(page)) != 0)
		return false;
	for (i = 0; i < n_pages(f); i++)
		if (pread(fd, page, sizeof(page),
			  (off_t)(i + 1) * KEPT_PAGE_BYTES) == sizeof(page))
			take_page(f, i, page);
	return true;
}

static void forget(struct kept_file *f)
{
	size_t i;

	for (i = 0; i < div_round_up(f->n_chunks, WORD_BITS); i++)
		atomic_store(&f->bits[i], 0);
}

/* Empty files. The map is nothing before it has a header, with a new salt. */
static int start_anew(int dir, struct kept_file *f,
		      const struct source_identity *id, struct error *err)
{
	uint8_t page[KEPT_PAGE_BYTES];
	int r = source_truncate(f->map, 0, err);

	forget(f);
	source_unref(TAKE_PTR(f->data));
	if (r >= 0)
		r = source_sync(f->map, err);
	if (r >= 0)
		r = open_data(dir, f, true, &f->data, err);
	if (r >= 0)
		r = source_truncate(f->data, f->bytes, err);
	if (r < 0)
		return r;
	/* Or an older file of that name comes back. */
	if (fsync(dir) < 0)
		return error_set(err, -errno, 0, "its folder: %s",
				 errno_text(errno));
	if (getrandom(&f->salt, sizeof(f->salt), 0) != sizeof(f->salt))
		f->salt = now_nsec();
	make_header(f, id, page);
	return source_write(f->map, page, sizeof(page), 0, err);
}

static int open_all(int dir, struct kept_file *f,
		    const struct source_identity *id, struct error *err)
{
	char name[64];
	uint64_t bytes = 0;
	int r;

	file_name(name, f->name, "map");
	r = open_map(dir, name, &f->map, err);
	if (r < 0)
		return r;
	if (read_map(f, id) && !open_data(dir, f, false, &f->data, NULL) &&
	    !source_measure(f->data, &bytes, NULL, NULL) && bytes == f->bytes)
		return 0;
	return start_anew(dir, f, id, err);
}

int kept_open(int dir, const struct source_identity *id, struct kept_file *ret,
	      struct error *err)
{
	struct kept_file f = { .bytes = id->bytes };
	int r;

	f.n_chunks = (size_t)div_round_up(f.bytes, KEPT_CHUNK_BYTES);
	kept_name(id, f.name);
	f.bits = calloc((size_t)div_round_up(f.n_chunks, WORD_BITS),
			sizeof(*f.bits));
	f.dirty = calloc(n_pages(&f), sizeof(*f.dirty));
	r = f.bits && f.dirty ? open_all(dir, &f, id, err)
			      : error_set(err, -ENOMEM, 0, "out of memory");
	if (r < 0) {
		kept_close(&f);
		return r;
	}
	*ret = f;
	return 0;
}

void kept_close(struct kept_file *f)
{
	source_unref(f->map);
	source_unref(f->data);
	free(f->bits);
	free(f->dirty);
	*f = (struct kept_file){ 0 };
}

/* ---- chunks ---- */

size_t kept_chunk_bytes(const struct kept_file *f, size_t chunk)
{
	return (size_t)min_u64(KEPT_CHUNK_BYTES,
			       f->bytes - (uint64_t)chunk * KEPT_CHUNK_BYTES);
}

bool kept_has(const struct kept_file *f, size_t chunk)
{
	return atomic_load_explicit(&f->bits[chunk / WORD_BITS],
				    memory_order_acquire) >>
		       chunk % WORD_BITS &
	       1;
}

static void set_dirty(struct kept_file *f, size_t chunk)
{
	atomic_store(&f->dirty[chunk / KEPT_PAGE_CHUNKS], 1);
}

void kept_add(struct kept_file *f, size_t chunk)
{
	atomic_fetch_or(&f->bits[chunk / WORD_BITS], 1ULL << chunk % WORD_BITS);
	set_dirty(f, chunk);
}

bool kept_take(struct kept_file *f, size_t chunk)
{
	uint64_t bit = 1ULL << chunk % WORD_BITS;
	uint64_t old = atomic_fetch_and(&f->bits[chunk / WORD_BITS], ~bit);

	set_dirty(f, chunk);
	return old & bit;
}

size_t kept_count(const struct kept_file *f)
{
	size_t i, n = 0;

	for (i = 0; i < div_round_up(f->n_chunks, WORD_BITS); i++)
		n += (size_t)__builtin_popcountll(atomic_load(&f->bits[i]));
	return n;
}

uint64_t kept_bytes(const struct kept_file *f)
{
	uint64_t bytes = (uint64_t)kept_count(f) * KEPT_CHUNK_BYTES;
	size_t last = f->n_chunks - 1;

	return kept_has(f, last)
		       ? bytes - KEPT_CHUNK_BYTES + kept_chunk_bytes(f, last)
		       : bytes;
}

/* ---- onto the disk ---- */

bool kept_is_dirty(const struct kept_file *f)
{
	size_t i;

	for (i = 0; i < n_pages(f); i++)
		if (atomic_load(&f->dirty[i]))
			return true;
	return false;
}

static void make_page(const struct kept_file *f, size_t i,
		      uint8_t page[KEPT_PAGE_BYTES])
{
	size_t w = i * WORDS_A_PAGE, k;
	size_t words = (size_t)div_round_up(f->n_chunks, WORD_BITS);

	memset(page, 0, KEPT_PAGE_BYTES);
	for (k = 0; k < WORDS_A_PAGE && w + k < words; k++)
		put_le64(page + k * 8, atomic_load(&f->bits[w + k]));
	put_le64(page + SUM_AT, page_sum(f, i, page));
}

struct pages {
	size_t n, *which;
	uint8_t *data; /* of each */
};

/* Of what is dirty, as it is now. */
static void take_dirty(struct kept_file *f, struct pages *p)
{
	size_t i;

	for (i = 0; i < n_pages(f); i++) {
		if (!atomic_exchange(&f->dirty[i], 0))
			continue;
		make_page(f, i, p->data + p->n * KEPT_PAGE_BYTES);
		p->which[p->n++] = i;
	}
}

/* A page that is half written has no right checksum: it says nothing. */
static int write_pages(struct kept_file *f, const struct pages *p,
		       struct error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; i < p->n && r >= 0; i++)
		r = source_write(f->map, p->data + i * KEPT_PAGE_BYTES,
				 KEPT_PAGE_BYTES,
				 (p->which[i] + 1) * KEPT_PAGE_BYTES, err);
	for (i = 0; i < p->n && r < 0; i++)
		atomic_store(&f->dirty[p->which[i]], 1);
	return r;
}

/* What is on disk may be anything now: it says nothing any more. */
static int break_off(struct kept_file *f, int code)
{
	atomic_store(&f->broken, true);
	source_truncate(f->map, 0, NULL);
	return code;
}

void kept_break(struct kept_file *f)
{
	break_off(f, 0);
}

/* The bits are those of before the sync, so what they tell of is on disk. */
int kept_flush(struct kept_file *f, struct error *err)
{
	CLEANUP(freep) uint8_t *memory = NULL;
	struct pages p = { 0 };
	int r;

	if (!kept_is_dirty(f) || atomic_load(&f->broken))
		return 0;
	memory = malloc(n_pages(f) * (sizeof(size_t) + KEPT_PAGE_BYTES));
	if (!memory)
		return error_set(err, -ENOMEM, 0, "out of memory");
	p.which = (size_t *)memory;
	p.data = memory + n_pages(f) * sizeof(size_t);
	take_dirty(f, &p);
	r = source_sync(f->data, err);
	if (r < 0)
		return break_off(f, r);
	r = write_pages(f, &p, err);
	if (r < 0)
		return r;
	r = source_sync(f->map, err);
	return r < 0 ? break_off(f, r) : 0;
}

/* ---- for people ---- */

/* Who else has it locked? */
static bool is_locked(int fd)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return !fcntl(fd, F_OFD_GETLK, &l) && l.l_type != F_UNLCK;
}

/* Of whatever object it is. */
static bool take_header(const uint8_t *page, struct kept_file *f,
			struct kept_info *ret)
{
	uint32_t chunk, len;

	memcpy(&chunk, page + CHUNK_AT, 4);
	memcpy(&len, page + TEXT_BYTES_AT, 4);
	len = le32toh(len);
	f->bytes = get_le64(page + BYTES_AT);
	f->salt = get_le64(page + SALT_AT);
	if (memcmp(page, magic, sizeof(magic)) != 0 ||
	    get_le64(page + SUM_AT) != sum(page, SUM_AT, 0) ||
	    le32toh(chunk) != KEPT_CHUNK_BYTES || len > TEXT_MAX || !f->bytes ||
	    f->bytes > (uint64_t)KEPT_CHUNKS_MAX * KEPT_CHUNK_BYTES)
		return false;
	memcpy(ret->text, page + TEXT_AT, len);
	memset(ret->text + len, 0, sizeof(ret->text) - len);
	ret->version = ret->text + strlen(ret->text) + 1;
	ret->bytes = f->bytes;
	f->n_chunks = (size_t)div_round_up(f->bytes, KEPT_CHUNK_BYTES);
	f->bits = calloc((size_t)div_round_up(f->n_chunks, WORD_BITS),
			 sizeof(*f->bits));
	return f->bits;
}

int kept_look(int dir, const char *name, struct kept_info *ret)
{
	CLEANUP(closep) int fd = -1;
	CLEANUP(kept_close) struct kept_file f = { 0 };
	uint8_t page[KEPT_PAGE_BYTES];
	struct stat st;
	char map[64];
	size_t i;

	file_name(map, name, "map");
	fd = open_beneath(dir, map, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0,
			  BENEATH_NO_LINKS);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 ||
	    pread(fd, page, sizeof(page), 0) != sizeof(page) ||
	    !take_header(page, &f, ret))
		return -EBADMSG;
	for (i = 0; i < n_pages(&f); i++)
		if (pread(fd, page, sizeof(page),
			  (off_t)(i + 1) * KEPT_PAGE_BYTES) == sizeof(page))
			take_page(&f, i, page);
	ret->kept_bytes = kept_bytes(&f);
	ret->used = st.st_mtim;
	ret->in_use = is_locked(fd);
	return 0;
}

int kept_remove(int dir, const char *name)
{
	CLEANUP(closep) int fd = -1;
	char map[64], data[64];
	int r;

	file_name(map, name, "map");
	file_name(data, name, "data");
	fd = open_beneath(dir, map, O_RDWR | O_CLOEXEC | O_NONBLOCK, 0,
			  BENEATH_NO_LINKS);
	if (fd >= 0) {
		r = lock_map(fd);
		if (r < 0)
			return r;
	}
	unlinkat(dir, map, 0);
	unlinkat(dir, data, 0);
	return 0;
}
