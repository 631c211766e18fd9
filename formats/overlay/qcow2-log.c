/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a guest was answered outlives the process that answered, flushed or not.
 *
 * Its data are in the page cache (or, by O_DIRECT, on the disk) when a write is
 * answered. The L2 entries that lead to them wait in memory for a flush: in
 * the file they must not come before the data are durable. So each entry that
 * changes is also noted here, in FILE.platter-log beside the file, before the
 * request that changed it is answered. The log is written and never synced: it
 * need not outlive the kernel, whose page cache has what the entries lead to,
 * and after a power cut it means nothing. It is the running boot's, or no log.
 *
 *	head (4 KiB) | half 0, records | ... | half 1, records, from 1 GiB on
 *
 * All of it in the machine's own byte order, as it never leaves it. A record is
 * an L2 entry as it is from then on, with the number of its half's turn, a
 * generation; those of one half count from its beginning up to the first that
 * is of another generation or torn. A flush turns to the other half when it has
 * copied what it will write; when it has ended, the half before is done with and
 * the next turn writes over it. A flush that fails leaves both in force. To do
 * again what both say, the older first, is right at every moment, whatever of
 * a flush was done: a cluster that has no record has not changed since.
 *
 * The qcow2 file has the log's number in a header extension, the mark. Without
 * it, a lost log could not be told from none. A file that is marked by this boot
 * and whose log is lost, damaged or another's is not opened: to go on with what
 * the disk was before is nothing that a guest can bear, and the user's to say.
 *
 * A failed fdatasync() is told by the log's head, too: pages that the kernel has
 * counted as written, and which are not, must not be believed by the next who
 * opens the file.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "formats/boot-id.h"
#include "formats/overlay/qcow2-header.h"
#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

#define SUFFIX	    ".platter-log"
#define HEAD_BYTES  4096U
#define HALF_BYTES  (1ULL << 30)
#define NONCE_BYTES (QCOW2_MARK_BYTES - BOOT_ID_BYTES)
/* A flush is due then: 2 MiB. So much of each half has its room from the start. */
#define RECORDS_DUE 65536U
#define CHUNK	    2048U /* records read at once */
/* The file's, at least. */
#define LOG_BYTES \
	(HEAD_BYTES + HALF_BYTES + RECORDS_DUE * sizeof(struct log_record))

/* How long a dying predecessor is waited for. */
#define PATIENCE_MS	 500U
#define PATIENCE_DEAD_MS 10000U

static const char magic[16] = "platter log 1\n";

enum log_state { LOG_OPEN = 1, LOG_ENDED = 2 };

struct head {
	char magic[sizeof(magic)];
	uint8_t boot[BOOT_ID_BYTES];
	uint8_t nonce[NONCE_BYTES];
	uint64_t ino; /* of the qcow2 file; its device's number may change */
	int64_t pid;
	uint64_t pid_started; /* proc(5), stat */
	uint64_t check; /* of all before it */
	/* Changed alone: */
	uint32_t state; /* enum log_state */
	uint32_t spoilt; /* an fdatasync() failed */
	uint32_t used; /* there are records of up to this generation */
};

struct log_record {
	uint64_t cluster; /* the guest's */
	uint64_t word, bitmap; /* struct entry */
	uint32_t gen;
	uint32_t check;
};

_Static_assert(sizeof(struct log_record) == 32, "records are of 32 bytes");
_Static_assert(sizeof(struct head) <= HEAD_BYTES, "the head fits");

struct records {
	struct log_record *items;
	size_t n, room;
};

struct half {
	/* Meta: */
	uint32_t gen;
	struct records noted;
	/* write_lock: */
	uint32_t out_gen;
	struct records out; /* to be written */
	uint64_t n_written;
};

struct qcow2_log {
	char *path; /* NULL: not beside a file */
	struct source *src; /* NULL: there is none */
	struct head head;
	atomic_bool begun;

	/* Held by who writes. Before meta. */
	pthread_mutex_t write_lock;
	struct half halves[2];
	/* Meta: */
	unsigned int now; /* which half */
	uint32_t gen; /* its */
	uint32_t flushed; /* halves of up to this one are done with */
	uint32_t collected; /* ... when the flush under way ends well */
	uint64_t n; /* records of this generation */
	uint64_t n_lost, collected_lost, flushed_lost; /* no memory for them */

	/* Changes noted, and of those the first so many are in the file. */
	atomic_uint_fast64_t noted, written;

	/* At open: */
	uint64_t n_found[2]; /* records, by half */
	bool left; /* a predecessor's, to be ended when all is replayed */
};

/* ---- checks ---- */

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

static uint64_t head_check(const struct head *h)
{
	return mix_bytes(1, h, offsetof(struct head, check));
}

static uint32_t record_check(const struct head *h, const struct log_record *r,
			     uint64_t idx)
{
	uint64_t v =
		mix_bytes(h->check, r,
			  offsetof(struct log_record, check) - sizeof(r->gen));

	return (uint32_t)(mix(v, (uint64_t)r->gen << 32 ^ idx) >> 32);
}

static uint64_t half_off(unsigned int half)
{
	return HEAD_BYTES + half * HALF_BYTES;
}

/* ---- the head ---- */

/* Made, and killed before it had a head: nothing is marked by it. */
static bool is_unborn(struct source *src)
{
	uint8_t buf[sizeof(struct head)] = { 0 };
	uint64_t bytes;

	return source_measure(src, &bytes, NULL, NULL) >= 0 &&
	       source_read(src, buf, (size_t)min_u64(bytes, sizeof(buf)), 0,
			   NULL) >= 0 &&
	       is_all_zero(buf, sizeof(buf));
}

static bool read_head(struct source *src, struct head *ret)
{
	return source_read(src, ret, sizeof(*ret), 0, NULL) >= 0 &&
	       !memcmp(ret->magic, magic, sizeof(magic)) &&
	       ret->check == head_check(ret);
}

static int write_field(struct qcow2_log *l, const void *field, size_t bytes,
		       struct error *err)
{
	return source_write(
		l->src, field, bytes,
		(uint64_t)((const uint8_t *)field - (const uint8_t *)&l->head),
		err);
}

/* Is it of this boot and this file? */
static bool is_of(const struct head *h, const struct qcow2_file *o)
{
	uint8_t boot[BOOT_ID_BYTES];
	struct stat st;

	return boot_id_get(boot) && !memcmp(h->boot, boot, sizeof(boot)) &&
	       !fstat(source_file(o->src)->fd, &st) && h->ino == st.st_ino;
}

static int fill_head(const struct qcow2_file *o, struct head *ret,
		     struct error *err)
{
	struct head h = { .pid = getpid(), .state = LOG_OPEN };
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
	h.check = head_check(&h);
	*ret = h;
	return 0;
}

/* ---- the file ---- */

static char *log_path(const char *path)
{
	char *ret;

	return asprintf(&ret, "%s" SUFFIX, path) < 0 ? NULL : ret;
}

/* *ret NULL: there is none. */
static int open_log(const char *path, struct source **ret, struct error *err)
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

static int create_log(struct qcow2_log *l, struct error *err)
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

unsigned int log_patience_ms(const char *path)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(freep) char *name = path ? log_path(path) : NULL;
	uint8_t boot[BOOT_ID_BYTES];
	struct head h;

	if (!path)
		return PATIENCE_DEAD_MS;
	if (!name || open_log(name, &src, NULL) < 0 || !src ||
	    !read_head(src, &h) || !boot_id_get(boot) ||
	    memcmp(h.boot, boot, sizeof(boot)) != 0 || h.pid == getpid() ||
	    process_started(h.pid) == h.pid_started)
		return PATIENCE_MS;
	return PATIENCE_DEAD_MS;
}

int log_drop_unwritten(struct qcow2_file *o, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(freep) char *path = log_path(o->path);
	struct head h;
	int r;

	if (!path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = open_log(path, &src, err);
	if (r < 0 || !src || !read_head(src, &h) || !is_of(&h, o) || !h.spoilt)
		return r;
	r = source_sync(o->src, err);
	if (r < 0)
		return r;
	posix_fadvise(source_file(o->src)->fd, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

/* ---- at open: what a predecessor left ---- */

static void remove_log(struct qcow2_log *l)
{
	source_unref(TAKE_PTR(l->src));
	if (l->path)
		unlink(l->path);
}

static int write_mark(struct qcow2_file *o, const uint8_t *mark,
		      struct error *err)
{
	struct qcow2_state *s = o->top->state;
	int r;

	if (!s->mark_off)
		return 0;
	r = source_write(o->src, mark, QCOW2_MARK_BYTES, s->mark_off, err);
	if (r >= 0)
		memcpy(s->mark, mark, QCOW2_MARK_BYTES);
	return r;
}

static int clear_mark(struct qcow2_file *o, struct error *err)
{
	static const uint8_t none[QCOW2_MARK_BYTES];

	if (!o->s->mark_off || is_all_zero(o->s->mark, QCOW2_MARK_BYTES))
		return 0;
	return write_mark(o, none, err);
}

/* Records @first and following; *ret_n: so many of them are in the file. */
static int read_records(struct qcow2_log *l, unsigned int half, uint64_t first,
			struct log_record *buf, size_t *ret_n,
			struct error *err)
{
	uint64_t off = half_off(half) + first * sizeof(*buf), bytes, end;
	int r = source_measure(l->src, &bytes, NULL, err);

	*ret_n = 0;
	if (r < 0)
		return r;
	end = min_u64(bytes, half_off(half) + HALF_BYTES);
	if (off < end)
		*ret_n = (size_t)min_u64(CHUNK, (end - off) / sizeof(*buf));
	return *ret_n ? source_read(l->src, buf, *ret_n * sizeof(*buf), off,
				    err)
		      : 0;
}

/*
 * Calls @each with the records of @half, in order; *ret_n: how many. One that
 * is in force behind one that is not means that something was lost between.
 */
static int walk_half(struct qcow2_log *l, unsigned int half,
		     int (*each)(struct qcow2_file *o,
				 const struct log_record *r, struct error *err),
		     struct qcow2_file *o, uint64_t *ret_n, struct error *err)
{
	CLEANUP(freep) struct log_record *buf = calloc(CHUNK, sizeof(*buf));
	uint64_t first = 0, valid = 0;
	uint32_t gen = 0;
	size_t n = 0, i;
	bool ended = false;
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	do {
		r = read_records(l, half, first, buf, &n, err);
		for (i = 0; i < n && r >= 0; i++) {
			const struct log_record *rec = &buf[i];
			bool ok = rec->gen &&
				  rec->check == record_check(&l->head, rec,
							     first + i) &&
				  (!gen || rec->gen == gen);

			if (ok && ended)
				return error_set(
					err, -EBADMSG, 0,
					"the log is damaged before its record "
					"%" PRIu64,
					first + i);
			ended = ended || !ok;
			if (ended)
				continue;
			gen = rec->gen;
			valid++;
			r = each ? each(o, rec, err) : 0;
		}
		first += n;
		/* What was never written to is not looked through. */
	} while (r >= 0 && n == CHUNK && !(ended && first >= RECORDS_DUE));
	l->halves[half].gen = gen;
	*ret_n = valid;
	return r;
}

/*
 * Is what must be there? The file has all its length from the start, the head
 * tells of the latest turn, and one turn follows the other.
 */
static bool is_complete(const struct qcow2_log *l)
{
	uint32_t a = l->halves[0].gen, b = l->halves[1].gen;
	uint32_t newer = a > b ? a : b, older = a > b ? b : a;
	uint64_t bytes;

	return source_measure(l->src, &bytes, NULL, NULL) >= 0 &&
	       bytes >= LOG_BYTES && newer >= l->head.used &&
	       (newer < 2 || older == newer - 1);
}

static int find_records(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	unsigned int i;
	int r = 0;

	for (i = 0; i < 2 && r >= 0; i++)
		r = walk_half(l, i, NULL, o, &l->n_found[i], err);
	if (r >= 0 && !is_complete(l))
		r = error_set(err, -EBADMSG, 0, "the log is not whole");
	return r;
}

static int refuse(const struct qcow2_file *o, const char *why,
		  struct error *err)
{
	return error_set(err, -EIO, o->s->mark_off,
			 "was left open by a server that died, and %s: what it "
			 "answered since the last flush is lost with that; "
			 "\"platter overlay recover --discard\" goes on "
			 "without",
			 why);
}

static bool must_be_dirty(const struct qcow2_file *o)
{
	return repair_is_possible(o) &&
	       !(o->s->h.incompatible & QCOW2_INCOMPAT_DIRTY);
}

/* It is this boot's, and this file's. */
static int take_log(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	int r;

	l->left = true;
	if (l->head.state == LOG_ENDED || l->head.spoilt ||
	    o->options.discard_log)
		return 0;
	r = find_records(o, err);
	if (r == -EBADMSG) {
		error_clear(err);
		return refuse(o, "its log is damaged", err);
	}
	if (r >= 0 && l->n_found[0] + l->n_found[1] && must_be_dirty(o))
		return refuse(o, "somebody else has written it since", err);
	return r;
}

static int look_beside(struct qcow2_file *o, struct error *err)
{
	bool left_open = qcow2_is_left_open(o->s), ours, same;
	struct qcow2_log *l = o->log;
	int r = open_log(l->path, &l->src, err);

	if (r < 0)
		return r;
	ours = l->src && read_head(l->src, &l->head);
	same = ours && is_of(&l->head, o);
	if (left_open && !(same && !memcmp(o->s->mark + BOOT_ID_BYTES,
					   l->head.nonce, NONCE_BYTES))) {
		l->left = o->options.discard_log;
		if (!l->left)
			return refuse(o,
				      !l->src ? "its log is not there"
				      : !ours ? "its log is damaged"
					      : "the log that is there is of "
						"another file",
				      err);
	} else if (same && (left_open || l->head.spoilt || !o->s->mark_off)) {
		return take_log(o, err);
	}
	/* Of an earlier boot, or of a file that was here before. */
	if (ours || l->left || (l->src && is_unborn(l->src)))
		remove_log(l);
	source_unref(TAKE_PTR(l->src));
	return 0;
}

int log_open(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&l->write_lock, NULL);
	o->log = l;
	if (!o->temporary) {
		l->path = log_path(o->path);
		return l->path ? look_beside(o, err)
			       : error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (!o->options.kept)
		return 0;
	r = file_source_adopt_rw(dup(o->options.kept->log_fd), 0, &l->src, err);
	if (r < 0)
		return r;
	return read_head(l->src, &l->head) ? take_log(o, err) : 0;
}

static int replay(struct qcow2_file *o, const struct log_record *rec,
		  struct error *err)
{
	struct entry e = { rec->word, rec->bitmap }, old;
	uint64_t place = entry_place(&e) >> o->cluster_bits, refs;
	struct page_set *t;
	int r;

	/* Of a disk that was about to grow, which nobody was told. */
	if (rec->cluster >= div_round_up(o->bytes, o->cluster_bytes))
		return 0;
	if (entry_place(&e) % o->cluster_bytes || place >= o->end)
		return refuse(o, "its log is of another disk", err);
	r = table_get_writable(o, rec->cluster << o->cluster_bits, &t, err);
	if (r < 0)
		return r;
	old = entry_get(o, t, rec->cluster << o->cluster_bits);
	if (old.word == e.word && old.bitmap == e.bitmap)
		return 0;
	/* All are counted anew where the file is marked as dirty. */
	r = place ? refs_get(o, place, &refs, err) : 0;
	if (r >= 0 && place && !refs) {
		r = refs_cover(o, place, err);
		if (r >= 0)
			r = refs_set(o, place, 1, err);
	}
	if (r >= 0)
		entry_set(o, t, rec->cluster << o->cluster_bits, e);
	return r;
}

int log_replay(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	unsigned int first = l->halves[0].gen > l->halves[1].gen, i;
	uint64_t n;
	int r = 0;

	if (!l->n_found[0] && !l->n_found[1])
		return 0;
	for (i = 0; i < 2 && r >= 0; i++)
		r = walk_half(l, i ^ first, replay, o, &n, err);
	/* The data that they lead to may be in the page cache alone. */
	atomic_store(&o->wrote, true);
	return r;
}

bool log_was_left(const struct qcow2_file *o)
{
	return o->log->left;
}

int log_forget(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	int r = clear_mark(o, err);

	if (r < 0)
		return r;
	l->left = false;
	if (l->path)
		remove_log(l);
	l->halves[0].gen = l->halves[1].gen = 0;
	return 0;
}

/* ---- a log of our own ---- */

/* Before the first change of the file; the head first, then what leads to it. */
static int begin_marked(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	uint8_t mark[QCOW2_MARK_BYTES];
	int r;

	if (o->temporary)
		return 0;
	memcpy(mark, l->head.boot, BOOT_ID_BYTES);
	memcpy(mark + BOOT_ID_BYTES, l->head.nonce, NONCE_BYTES);
	pthread_mutex_lock(&o->meta);
	r = repair_mark(o, err);
	if (r >= 0)
		r = qcow2_make_room_for_mark(o, err);
	if (r >= 0)
		r = write_mark(o, mark, err);
	pthread_mutex_unlock(&o->meta);
	return r;
}

/* As a log without records is. Meta is held: a flush may be under way. */
static void begin_turns(struct qcow2_log *l)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		l->halves[i].noted.n = l->halves[i].out.n = 0;
		l->halves[i].out_gen = 0;
		l->halves[i].n_written = 0;
	}
	l->now = 0;
	l->gen = l->halves[0].gen = 1;
	l->halves[1].gen = l->flushed = l->collected = 0;
	l->n = 0;
}

static int begin(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	/* In our own life: what a predecessor's said has been heeded. */
	uint32_t spoilt = l->src ? l->head.spoilt : 0;
	unsigned int i;
	int r = fill_head(o, &l->head, err);

	l->head.spoilt = spoilt;
	if (r >= 0 && !l->src)
		r = create_log(l, err);
	if (r < 0)
		return r;
	r = source_truncate(l->src, LOG_BYTES, err);
	/* So that a full disk is told by this, and not by a later answer. */
	for (i = 0; i < 2 && !o->temporary; i++)
		if (fallocate(source_file(l->src)->fd, 0, (off_t)half_off(i),
			      RECORDS_DUE * sizeof(struct log_record)) < 0 &&
		    errno == ENOSPC)
			r = error_set(err, -ENOSPC, 0, "%s: no room for it",
				      l->path);
	pthread_mutex_lock(&o->meta);
	begin_turns(l);
	pthread_mutex_unlock(&o->meta);
	if (r >= 0)
		r = source_write(l->src, &l->head, sizeof(l->head), 0, err);
	if (r >= 0)
		r = begin_marked(o, err);
	if (r < 0 && l->path)
		remove_log(l);
	return r;
}

int log_begin(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	int r = 0;

	if (!o->options.log ||
	    atomic_load_explicit(&l->begun, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&l->write_lock);
	if (!atomic_load(&l->begun)) {
		r = begin(o, err);
		atomic_store_explicit(&l->begun, r >= 0, memory_order_release);
	}
	pthread_mutex_unlock(&l->write_lock);
	return r;
}

static bool records_add(struct records *to, const struct log_record *items,
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
static bool take_noted(struct half *h)
{
	struct records empty;

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
	struct half *h = &l->halves[half];
	size_t i;
	int r;

	if (!h->out.n)
		return 0;
	if (h->n_written + h->out.n > HALF_BYTES / sizeof(struct log_record))
		return error_set(err, -ENOSPC, 0,
				 "the log is full, and cannot be flushed");
	for (i = 0; i < h->out.n; i++)
		h->out.items[i].check = record_check(&l->head, &h->out.items[i],
						     h->n_written + i);
	r = source_write(
		l->src, h->out.items, h->out.n * sizeof(struct log_record),
		half_off(half) + h->n_written * sizeof(struct log_record), err);
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
	r = write_field(l, &l->head.used, sizeof(l->head.used), err);
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
	return o->log->n >= RECORDS_DUE;
}

void log_turn(struct qcow2_file *o)
{
	struct qcow2_log *l = o->log;
	struct half *other = &l->halves[!l->now];

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
	if (!l->src && fill_head(o, &l->head, NULL) >= 0 &&
	    create_log(l, NULL) >= 0)
		source_write(l->src, &l->head, sizeof(l->head), 0, NULL);
	l->head.spoilt = 1;
	if (l->src)
		write_field(l, &l->head.spoilt, sizeof(l->head.spoilt), NULL);
}

int log_will_be_beside(struct qcow2_file *o, const char *path,
		       struct error *err)
{
	struct qcow2_log *l = o->log;
	char *name = log_path(path);

	assert(!atomic_load(&l->begun) && !l->src);
	if (!name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	free(l->path);
	l->path = name;
	return 0;
}

int log_end(struct qcow2_file *o, struct error *err)
{
	struct qcow2_log *l = o->log;
	int r;

	if (!atomic_load(&l->begun))
		return 0;
	l->head.state = LOG_ENDED;
	r = write_field(l, &l->head.state, sizeof(l->head.state), err);
	return r < 0 ? r : clear_mark(o, err);
}

void log_remove(struct qcow2_file *o)
{
	struct qcow2_log *l = o->log;

	if (!atomic_load(&l->begun))
		return;
	atomic_store(&l->begun, false);
	if (l->path)
		remove_log(l);
	atomic_store(&l->written, atomic_load(&l->noted));
	l->n = 0;
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
