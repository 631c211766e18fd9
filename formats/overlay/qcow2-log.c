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
#include "formats/overlay/qcow2-log-inside.h"
#include "iouring/write.h"

#define CHUNK 2048U /* records read at once */

/* How long a dying predecessor is waited for. */
#define PATIENCE_MS	 500U
#define PATIENCE_DEAD_MS 10000U

/* Made, and killed before it had a head: nothing is marked by it. */
static bool is_unborn(struct source *src)
{
	uint8_t buf[sizeof(struct log_head)] = { 0 };
	uint64_t bytes;

	return source_measure(src, &bytes, NULL, NULL) >= 0 &&
	       source_read(src, buf, (size_t)min_u64(bytes, sizeof(buf)), 0,
			   NULL) >= 0 &&
	       is_all_zero(buf, sizeof(buf));
}

/* Is it of this boot and this file? */
static bool is_of(const struct log_head *h, const struct qcow2_file *o)
{
	uint8_t boot[BOOT_ID_BYTES];
	struct stat st;

	return boot_id_get(boot) && !memcmp(h->boot, boot, sizeof(boot)) &&
	       !fstat(source_file(o->src)->fd, &st) && h->ino == st.st_ino;
}

unsigned int log_patience_ms(const char *path)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(freep) char *name = path ? log_file_path(path) : NULL;
	uint8_t boot[BOOT_ID_BYTES];
	struct log_head h;

	if (!path)
		return PATIENCE_DEAD_MS;
	if (!name || log_file_open(name, &src, NULL) < 0 || !src ||
	    !log_head_read(src, &h) || !boot_id_get(boot) ||
	    memcmp(h.boot, boot, sizeof(boot)) != 0 || h.pid == getpid() ||
	    process_started(h.pid) == h.pid_started)
		return PATIENCE_MS;
	return PATIENCE_DEAD_MS;
}

int log_drop_unwritten(struct qcow2_file *o, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(freep) char *path = log_file_path(o->path);
	struct log_head h;
	int r;

	if (!path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = log_file_open(path, &src, err);
	if (r < 0 || !src || !log_head_read(src, &h) || !is_of(&h, o) ||
	    !h.spoilt)
		return r;
	r = source_sync(o->src, err);
	if (r < 0)
		return r;
	posix_fadvise(source_file(o->src)->fd, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

/* ---- at open: what a predecessor left ---- */

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
	uint64_t off = log_half_off(half) + first * sizeof(*buf), bytes, end;
	int r = source_measure(l->src, &bytes, NULL, err);

	*ret_n = 0;
	if (r < 0)
		return r;
	end = min_u64(bytes, log_half_off(half) + LOG_HALF_BYTES);
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
				  rec->check == log_record_check(&l->head, rec,
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
	} while (r >= 0 && n == CHUNK && !(ended && first >= LOG_RECORDS_DUE));
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
	return dirty_is_possible(o) &&
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
	int r = log_file_open(l->path, &l->src, err);

	if (r < 0)
		return r;
	ours = l->src && log_head_read(l->src, &l->head);
	same = ours && is_of(&l->head, o);
	if (left_open && !(same && !memcmp(o->s->mark + BOOT_ID_BYTES,
					   l->head.nonce, LOG_NONCE_BYTES))) {
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
		log_file_remove(l);
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
		l->path = log_file_path(o->path);
		return l->path ? look_beside(o, err)
			       : error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (!o->options.kept)
		return 0;
	r = file_source_adopt_rw(dup(o->options.kept->log_fd), 0, &l->src, err);
	if (r < 0)
		return r;
	return log_head_read(l->src, &l->head) ? take_log(o, err) : 0;
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
		log_file_remove(l);
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
	memcpy(mark + BOOT_ID_BYTES, l->head.nonce, LOG_NONCE_BYTES);
	pthread_mutex_lock(&o->meta);
	r = dirty_mark(o, err);
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
	int r = log_head_fill(o, &l->head, err);

	l->head.spoilt = spoilt;
	if (r >= 0 && !l->src)
		r = log_file_create(l, err);
	if (r < 0)
		return r;
	r = source_truncate(l->src, LOG_BYTES, err);
	/* So that a full disk is told by this, and not by a later answer. */
	for (i = 0; i < 2 && !o->temporary; i++)
		if (fallocate(
			    source_file(l->src)->fd, 0, (off_t)log_half_off(i),
			    LOG_RECORDS_DUE * sizeof(struct log_record)) < 0 &&
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
		log_file_remove(l);
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

int log_will_be_beside(struct qcow2_file *o, const char *path,
		       struct error *err)
{
	struct qcow2_log *l = o->log;
	char *name = log_file_path(path);

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
	r = log_head_write_field(l, &l->head.state, sizeof(l->head.state), err);
	return r < 0 ? r : clear_mark(o, err);
}

void log_remove(struct qcow2_file *o)
{
	struct qcow2_log *l = o->log;

	if (!atomic_load(&l->begun))
		return;
	atomic_store(&l->begun, false);
	if (l->path)
		log_file_remove(l);
	atomic_store(&l->written, atomic_load(&l->noted));
	l->n = 0;
}
