/* SPDX-License-Identifier: BSD-3-Clause */
/* The file of the log: its head, and the records that are noted. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "formats/overlay/qcow2-log-inside.h"
#include "iouring/nowait.h"
#include "iouring/write.h"

#define SUFFIX ".platter-log"

static const char magic[16] = "platter log 1\n";

_Static_assert(sizeof(struct log_record) == 32, "records are of 32 bytes");
_Static_assert(sizeof(struct log_head) <= LOG_HEAD_BYTES, "the head fits");

static uint64_t mix(uint64_t h, uint64_t v)
{
	h ^= v;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 32;
	h *= 0xc4ceb9fe1a85ec53ULL;
	return h ^ h >> 29;
}

static uint64_t mix_bytes(uint64_t h, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint64_t v;

	for (; len >= sizeof(v); p += sizeof(v), len -= sizeof(v)) {
		memcpy(&v, p, sizeof(v));
		h = mix(h, v);
	}
	return h;
}

static uint64_t log_head_check(const struct log_head *h)
{
	return mix_bytes(1, h, offsetof(struct log_head, check));
}

uint32_t log_record_check(const struct log_head *h, const struct log_record *r,
			  uint64_t idx)
{
	uint64_t v =
		mix_bytes(h->check, r,
			  offsetof(struct log_record, check) - sizeof(r->gen));

	return (uint32_t)(mix(v, (uint64_t)r->gen << 32 ^ idx) >> 32);
}

uint64_t log_half_off(unsigned int half)
{
	return LOG_HEAD_BYTES + half * LOG_HALF_BYTES;
}

bool log_head_read(struct source *src, struct log_head *ret)
{
	return source_read(src, ret, sizeof(*ret), 0, NULL) >= 0 &&
	       !memcmp(ret->magic, magic, sizeof(magic)) &&
	       ret->check == log_head_check(ret);
}

int log_head_write_field(struct qcow2_log *l, const void *field, size_t bytes,
			 struct error *err)
{
	return source_write(
		l->src, field, bytes,
		(uint64_t)((const uint8_t *)field - (const uint8_t *)&l->head),
		err);
}

int log_head_fill(const struct qcow2_file *o, struct log_head *ret,
		  struct error *err)
{
	struct log_head h = { .pid = getpid(), .state = LOG_OPEN };
	struct stat st;

	memcpy(h.magic, magic, sizeof(magic));
	if (!boot_id_get(h.boot))
		return error_set(err, -ENOTSUP, 0,
				 "the kernel's boot_id cannot be read, and "
				 "without it what is answered cannot be kept");
	if (getrandom(h.nonce, sizeof(h.nonce), 0) != sizeof(h.nonce) ||
	    fstat(source_file(o->src)->fd, &st) < 0)
		return error_set(err, -EIO, 0, "no log can be made: %s",
				 errno_text(errno));
	h.ino = st.st_ino;
	h.pid_started = process_started(h.pid);
	h.check = log_head_check(&h);
	*ret = h;
	return 0;
}

char *log_file_path(const char *path)
{
	char *ret;

	return asprintf(&ret, "%s" SUFFIX, path) < 0 ? NULL : ret;
}

int log_file_open(const char *path, struct source **ret, struct error *err)
{
	int fd = open(path,
		      O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	int r;

	*ret = NULL;
	if (fd < 0 && errno == ENOENT)
		return 0;
	r = fd < 0 ? error_set(err, -errno, 0, "cannot be opened: %s",
			       errno_text(errno))
		   : file_source_adopt_rw(fd, 0, ret, err);
	if (r < 0)
		error_prefix(err, "%s", path);
	return r;
}

int log_file_create(struct qcow2_log *l, struct error *err)
{
	int fd = open(l->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r;

	r = fd < 0 ? error_set(err, -errno, 0, "cannot be made: %s",
			       errno_text(errno))
		   : file_source_adopt_rw(fd, 0, &l->src, err);
	if (r < 0)
		error_prefix(err, "%s", l->path);
	return r;
}

void log_file_remove(struct qcow2_log *l)
{
	source_unref(TAKE_PTR(l->src));
	if (l->path)
		unlink(l->path);
}

static bool records_add(struct log_records *to, const struct log_record *items,
			size_t n)
{
	size_t room = to->room ? to->room : 64;
	struct log_record *grown;

	while (room < to->n + n)
		room *= 2;
	if (room != to->room) {
		grown = realloc(to->items, room * sizeof(*grown));
		if (!grown)
			return false;
		to->items = grown;
		to->room = room;
	}
	memcpy(to->items + to->n, items, n * sizeof(*items));
	to->n += n;
	return true;
}

void log_note(struct qcow2_file *o, uint64_t guest_off, struct entry e)
{
	struct qcow2_log *l = o->log;
	struct log_record r = { .cluster = guest_off >> o->cluster_bits,
				.word = e.word,
				.bitmap = e.bitmap,
				.gen = l->gen };

	if (!atomic_load_explicit(&l->begun, memory_order_relaxed))
		return;
	if (!records_add(&l->halves[l->now].noted, &r, 1))
		l->n_lost++;
	l->n++;
	atomic_fetch_add_explicit(&l->noted, 1, memory_order_release);
}

/* What was noted becomes what is to be written. Meta is held. */
static bool take_noted(struct log_half *h)
{
	struct log_records empty;

	if (h->out_gen != h->gen) {
		/* A flush has done what was left of the turn before. */
		h->out_gen = h->gen;
		h->out.n = 0;
		h->n_written = 0;
	}
	if (!h->noted.n)
		return true;
	if (!h->out.n) {
		empty = h->out;
		h->out = h->noted;
		h->noted = empty;
		return true;
	}
	if (!records_add(&h->out, h->noted.items, h->noted.n))
		return false;
	h->noted.n = 0;
	return true;
}

static int write_half(struct qcow2_log *l, unsigned int half, struct error *err)
{
	struct log_half *h = &l->halves[half];
	size_t i;
	int r;

	if (!h->out.n)
		return 0;
	if (h->n_written + h->out.n >
	    LOG_HALF_BYTES / sizeof(struct log_record))
		return error_set(err, -ENOSPC, 0,
				 "the log is full, and cannot be flushed");
	for (i = 0; i < h->out.n; i++)
		h->out.items[i].check = log_record_check(
			&l->head, &h->out.items[i], h->n_written + i);
	r = source_write(
		l->src, h->out.items, h->out.n * sizeof(struct log_record),
		log_half_off(half) + h->n_written * sizeof(struct log_record),
		err);
	if (r < 0)
		return r;
	h->n_written += h->out.n;
	h->out.n = 0;
	return 0;
}

/* The latest turn that has records; after them, so that it is never ahead. */
static int write_used(struct qcow2_log *l, struct error *err)
{
	uint32_t was = l->head.used, gen = was;
	unsigned int i;
	int r;

	for (i = 0; i < 2; i++)
		if (l->halves[i].n_written && l->halves[i].out_gen > gen)
			gen = l->halves[i].out_gen;
	if (gen == was)
		return 0;
	l->head.used = gen;
	r = log_head_write_field(l, &l->head.used, sizeof(l->head.used), err);
	if (r < 0)
		l->head.used = was;
	return r;
}

/* All that has been noted by now. Write_lock is held. */
static int write_noted(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	unsigned int older;
	uint64_t upto;
	bool taken;
	int r;

	pthread_mutex_lock(&o->meta);
	upto = atomic_load(&l->noted);
	older = !l->now;
	taken = l->n_lost == l->flushed_lost && take_noted(&l->halves[0]) &&
		take_noted(&l->halves[1]);
	pthread_mutex_unlock(&o->meta);
	if (!taken)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = write_half(l, older, err);
	if (r >= 0)
		r = write_half(l, !older, err);
	if (r >= 0)
		r = write_used(l, err);
	if (r >= 0)
		atomic_store(&l->written, upto);
	return r;
}

int log_commit(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	uint64_t mine = atomic_load_explicit(&l->noted, memory_order_acquire);
	int r = 0;

	if (atomic_load_explicit(&l->written, memory_order_acquire) >= mine)
		return 0;
	if (!may_wait())
		return -EAGAIN;
	pthread_mutex_lock(&l->write_lock);
	if (atomic_load(&l->written) < mine)
		r = write_noted(o, err);
	pthread_mutex_unlock(&l->write_lock);
	if (r < 0)
		error_set(err, r, 0, "cannot be kept: %s", errno_text(-r));
	return r;
}

bool log_is_due(const struct qcow2_file *o)
{
	return o->log->n >= LOG_RECORDS_DUE;
}

void log_turn(struct qcow2_file *o)
{
	struct qcow2_log *l = o->log;
	struct log_half *other = &l->halves[!l->now];

	l->collected = l->gen - 1;
	l->collected_lost = l->n_lost;
	/* Not over what no flush has made durable. */
	if (!atomic_load(&l->begun) || !l->n || other->gen > l->flushed)
		return;
	l->collected = l->gen;
	l->now = !l->now;
	other->gen = ++l->gen;
	other->noted.n = 0;
	l->n = 0;
}

void log_flushed(struct qcow2_file *o)
{
	struct qcow2_log *l = o->log;

	if (!atomic_load(&l->begun))
		return;
	l->flushed = l->collected;
	l->flushed_lost = l->collected_lost;
}

void log_spoil(struct qcow2_file *o)
{
	struct qcow2_log *l = o->log;

	if (o->temporary || !l)
		return;
	if (!l->src && log_head_fill(o, &l->head, NULL) >= 0 &&
	    log_file_create(l, NULL) >= 0)
		source_write(l->src, &l->head, sizeof(l->head), 0, NULL);
	l->head.spoilt = 1;
	if (l->src)
		log_head_write_field(l, &l->head.spoilt, sizeof(l->head.spoilt),
				     NULL);
}

void log_done(struct qcow2_file *o)
{
	struct qcow2_log *l = o->log;
	unsigned int i;

	if (!l)
		return;
	for (i = 0; i < 2; i++) {
		free(l->halves[i].noted.items);
		free(l->halves[i].out.items);
	}
	source_unref(l->src);
	pthread_mutex_destroy(&l->write_lock);
	free(l->path);
	free(TAKE_PTR(o->log));
}
