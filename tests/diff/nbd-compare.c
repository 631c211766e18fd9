/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd-compare: is this NBD export the same disk as this reference?
 *
 *	nbd-compare [options] URI REFERENCE
 *
 * Sixteen threads on four connections read at random places, then the whole
 * disk is read from its start to its end, then base:allocation is asked in
 * big steps and at random places. What must hold:
 *
 *   - the sizes are equal, and every byte read is the reference's;
 *   - a read that touches a range named by --eio fails with EIO; one that
 *     touches a range named by --maybe may; all others succeed;
 *   - block status covers the disk exactly, answers the same however it is
 *     asked, and what it calls ZERO is zero in the reference.
 *
 * REFERENCE is a raw file. For disks that no file system could hold as one,
 * --segments names a text file of lines "GUEST_OFF LEN FILE_OFF", ascending:
 * these ranges lie in REFERENCE, all else is zero, and --size tells the size.
 *
 * Exit status: 0 equal, 1 different, 2 could not be compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#define CONNECTIONS 4
#define THREADS	    16
#define READ_MAX    (2U << 20)
#define EDGE	    (64U << 10)
#define WANT_BYTES  (64U << 10) /* of the reference at a time */
#define STATUS_STEP 0xffff0000ULL /* the most that a request can ask for */

struct range {
	uint64_t off;
	uint64_t len;
	uint64_t file_off; /* segments only */
};

struct ranges {
	struct range *v; /* ascending, not overlapping */
	size_t n;
};

struct reference {
	int fd;
	uint64_t bytes;
	bool sparse; /* segs says where the bytes are */
	struct ranges segs;
	struct ranges eio;
	struct ranges maybe; /* what fails or is the reference's */
};

/*
 * Four threads share a connection. One of them, at most, waits for the socket
 * (polling); the others wait for it to tell them.
 */
struct connection {
	struct nbd_handle *nbd;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	bool polling; /* under lock */
};

struct status_extent {
	uint64_t off;
	uint64_t len;
	uint32_t flags;
};

struct status_map {
	struct status_extent *v;
	size_t n, max;
	uint64_t end; /* what is covered so far */
	uint64_t disk_bytes;
	size_t answers; /* extents in the last reply */
	uint64_t first_len;
	uint32_t first_flags;
	bool keep; /* whether replies extend v */
};

static struct reference reference;
static struct connection connections[CONNECTIONS];
static uint64_t seed;
static uint64_t cluster_bytes = 65536;
static unsigned int reads_per_thread = 40;
static unsigned int status_probes = 200;
static atomic_bool failed;
static atomic_uint_fast64_t bytes_compared, reads_done, reads_refused;
static pthread_mutex_t report_lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt,
								...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("nbd-compare: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

/* The first difference is told; those that follow from it are not. */
__attribute__((format(printf, 1, 2))) static void differ(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&report_lock);
	if (!atomic_exchange(&failed, true)) {
		va_start(ap, fmt);
		fputs("nbd-compare: ", stderr);
		vfprintf(stderr, fmt, ap);
		fprintf(stderr, " (seed %" PRIu64 ")\n", seed);
		va_end(ap);
	}
	pthread_mutex_unlock(&report_lock);
}

/* xorshift64*: the same reads again from the same seed. */
static uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717ULL;
}

static uint64_t random_below(uint64_t *state, uint64_t limit)
{
	return random_next(state) % limit;
}

/* The first range that ends after @off; r->n when there is none. */
static size_t ranges_find(const struct ranges *r, uint64_t off)
{
	size_t lo = 0, hi = r->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->v[mid].off + r->v[mid].len <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool ranges_touch(const struct ranges *r, uint64_t off, uint64_t len)
{
	size_t i = ranges_find(r, off);

	return i < r->n && r->v[i].off < off + len;
}

static void ranges_add(struct ranges *r, struct range add)
{
	if ((r->n & (r->n - 1)) == 0) {
		r->v = realloc(r->v, (r->n ? r->n * 2 : 1) * sizeof(*r->v));
		if (!r->v)
			die("out of memory");
	}
	if (r->n && add.off < r->v[r->n - 1].off + r->v[r->n - 1].len)
		die("ranges are not ascending at %" PRIu64, add.off);
	r->v[r->n++] = add;
}

static void file_read(void *buf, size_t len, uint64_t off)
{
	char *at = buf;

	while (len) {
		ssize_t n = pread(reference.fd, at, len, (off_t)off);

		if (n < 0)
			die("reading the reference: %s", strerror(errno));
		if (n == 0)
			die("the reference ends at %" PRIu64, off);
		at += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
}

static void reference_read(void *buf, size_t len, uint64_t off)
{
	size_t i;

	if (!reference.sparse) {
		file_read(buf, len, off);
		return;
	}
	memset(buf, 0, len);
	for (i = ranges_find(&reference.segs, off); i < reference.segs.n; i++) {
		const struct range *s = &reference.segs.v[i];
		uint64_t from = s->off > off ? s->off : off;
		uint64_t to = s->off + s->len;

		if (s->off >= off + len)
			break;
		if (to > off + len)
			to = off + len;
		file_read((char *)buf + (from - off), to - from,
			  s->file_off + (from - s->off));
	}
}

/*
 * Room for a read. First touches of memory are dear on virtual machines: few
 * large pages, and the reference is looked at through a window that stays in
 * the processor's cache.
 */
static uint8_t *read_buffer(void)
{
	uint8_t *buf = aligned_alloc(READ_MAX, READ_MAX);

	if (!buf)
		die("out of memory");
	madvise(buf, READ_MAX, MADV_HUGEPAGE);
	return buf;
}

static void compare(const uint8_t *got, size_t len, uint64_t off)
{
	uint8_t want[WANT_BYTES];
	size_t at, n, i;

	atomic_fetch_add(&bytes_compared, len);
	for (at = 0; at < len; at += n) {
		n = len - at < WANT_BYTES ? len - at : WANT_BYTES;
		reference_read(want, n, off + at);
		if (!memcmp(got + at, want, n))
			continue;
		for (i = 0; got[at + i] == want[i]; i++)
			;
		differ("read of %zu bytes at %" PRIu64 ": byte %" PRIu64
		       " is 0x%02x, the reference has 0x%02x",
		       len, off, off + at + i, got[at + i], want[i]);
		return;
	}
}

/* Reads through @c, beside what other threads read. Returns an errno or 0. */
static int connection_read(struct connection *c, void *buf, size_t len,
			   uint64_t off)
{
	int64_t cookie;
	int done = 0, ret = 0;

	pthread_mutex_lock(&c->lock);
	cookie = nbd_aio_pread(c->nbd, buf, len, off, NBD_NULL_COMPLETION, 0);
	if (cookie < 0)
		die("read of %zu bytes at %" PRIu64 " not sent: %s", len, off,
		    nbd_get_error());
	while (!(done = nbd_aio_command_completed(c->nbd, (uint64_t)cookie))) {
		struct pollfd p = { .fd = nbd_aio_get_fd(c->nbd) };
		unsigned int dir = nbd_aio_get_direction(c->nbd);

		if (c->polling) {
			pthread_cond_wait(&c->moved, &c->lock);
			continue;
		}
		if (dir & LIBNBD_AIO_DIRECTION_READ)
			p.events |= POLLIN;
		if (dir & LIBNBD_AIO_DIRECTION_WRITE)
			p.events |= POLLOUT;
		c->polling = true;
		pthread_mutex_unlock(&c->lock);
		/* Bounded: another thread's send may want POLLOUT meanwhile. */
		poll(&p, 1, 20);
		pthread_mutex_lock(&c->lock);
		c->polling = false;
		dir = nbd_aio_get_direction(c->nbd);
		if ((p.revents & (POLLIN | POLLHUP)) &&
		    (dir & LIBNBD_AIO_DIRECTION_READ))
			nbd_aio_notify_read(c->nbd);
		else if ((dir & LIBNBD_AIO_DIRECTION_WRITE))
			nbd_aio_notify_write(c->nbd);
		pthread_cond_broadcast(&c->moved);
		if (nbd_aio_is_dead(c->nbd) == 1 ||
		    nbd_aio_is_closed(c->nbd) == 1)
			die("the server closed the connection");
	}
	if (done < 0)
		ret = nbd_get_errno() ? nbd_get_errno() : EIO;
	pthread_mutex_unlock(&c->lock);
	return ret;
}

/* One read of @len bytes at @off, judged. */
static void check_read(struct connection *c, uint8_t *got, size_t len,
		       uint64_t off)
{
	bool refuse = ranges_touch(&reference.eio, off, len);
	int r;

	memset(got, 0xa5, len);
	r = connection_read(c, got, len, off);
	atomic_fetch_add(&reads_done, 1);
	if (refuse) {
		atomic_fetch_add(&reads_refused, 1);
		if (!r)
			differ("read of %zu bytes at %" PRIu64
			       " succeeded, EIO was expected",
			       len, off);
		else if (r != EIO)
			differ("read of %zu bytes at %" PRIu64
			       " failed with %s, EIO was expected",
			       len, off, strerror(r));
		return;
	}
	if (r == EIO && ranges_touch(&reference.maybe, off, len)) {
		atomic_fetch_add(&reads_refused, 1);
		return;
	}
	if (r) {
		differ("read of %zu bytes at %" PRIu64 " failed: %s", len, off,
		       strerror(r));
		return;
	}
	compare(got, len, off);
}

/* Where something begins or ends: a cluster, a segment, a bad range. */
static uint64_t pick_border(uint64_t *rng)
{
	uint64_t clusters = reference.bytes / cluster_bytes + 1;
	const struct ranges *r = NULL;
	const struct range *at;

	switch (random_below(rng, 8)) {
	case 0:
		return reference.bytes;
	case 1:
	case 2:
		if (reference.segs.n)
			r = &reference.segs;
		break;
	case 3:
		if (reference.eio.n)
			r = &reference.eio;
		break;
	}
	if (!r)
		return random_below(rng, clusters) * cluster_bytes;
	at = &r->v[random_below(rng, r->n)];
	return at->off + (random_below(rng, 2) ? at->len : 0);
}

static void pick_range(uint64_t *rng, uint64_t *ret_off, size_t *ret_len)
{
	uint64_t bytes = reference.bytes;
	uint64_t off, len;

	switch (random_below(rng, 6)) {
	case 0:
		len = 1 + random_below(rng, 16);
		break;
	case 1:
		len = 1 + random_below(rng, 8192);
		break;
	case 2:
		len = 512 * (1 + random_below(rng, 16));
		break;
	case 3:
		len = cluster_bytes + random_below(rng, 3) - 1;
		break;
	case 4:
		len = 1 + random_below(rng, cluster_bytes < EDGE
						    ? 4 * cluster_bytes
						    : 4ULL * EDGE);
		break;
	default:
		len = 1 + random_below(rng, READ_MAX);
		break;
	}
	if (len > READ_MAX)
		len = READ_MAX;
	if (len > bytes)
		len = bytes;
	if (random_below(rng, 4) == 0) {
		off = random_below(rng, bytes);
	} else {
		/* Around a border: across it, up to it, from it. */
		off = pick_border(rng);
		switch (random_below(rng, 3)) {
		case 0:
			off -= off < len ? off : len;
			break;
		case 1:
			len = len < 2 ? 1 : len;
			off -= off < len / 2 ? off : len / 2;
			break;
		}
	}
	if (off > bytes - len)
		off = bytes - len;
	*ret_off = off;
	*ret_len = (size_t)len;
}

static void *random_reader(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;
	uint64_t rng = (seed + 1) * 0x9e3779b97f4a7c15ULL + me * 7919;
	uint8_t *got = read_buffer();
	unsigned int i;

	for (i = 0; i < 4; i++)
		random_next(&rng);
	for (i = 0; i < reads_per_thread && !atomic_load(&failed); i++) {
		uint64_t off;
		size_t len;

		pick_range(&rng, &off, &len);
		check_read(&connections[me % CONNECTIONS], got, len, off);
	}
	free(got);
	return NULL;
}

static void read_randomly(void)
{
	pthread_t threads[THREADS];
	size_t i;

	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, random_reader,
				   (void *)(uintptr_t)i))
			die("cannot start a thread");
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

/* Where the next range begins, or the one that @off lies in ends. */
static uint64_t next_border(const struct ranges *r, uint64_t off)
{
	size_t i = ranges_find(r, off);

	if (i == r->n)
		return UINT64_MAX;
	return r->v[i].off > off ? r->v[i].off : r->v[i].off + r->v[i].len;
}

/*
 * [@off, @end) in reads that either touch no bad range or lie in one, so that
 * the bytes right before and behind it are looked at too.
 */
static void read_span(uint64_t off, uint64_t end, uint8_t *got)
{
	while (off < end && !atomic_load(&failed)) {
		uint64_t bad = next_border(&reference.eio, off);
		uint64_t maybe = next_border(&reference.maybe, off);
		uint64_t stop = bad < maybe ? bad : maybe;

		if (stop > end)
			stop = end;
		if (stop - off > READ_MAX)
			stop = off + READ_MAX;
		check_read(&connections[0], got, stop - off, off);
		off = stop;
	}
}

/*
 * What the reference's file has, and a little of the holes on both sides: what
 * is told of holes check_status() compares.
 */
static void read_data(uint8_t *got)
{
	uint64_t off = 0, end = reference.bytes;

	while (off < end && !atomic_load(&failed)) {
		off_t data = lseek(reference.fd, (off_t)off, SEEK_DATA), hole;
		uint64_t from, to;

		if (data < 0)
			break;
		hole = lseek(reference.fd, data, SEEK_HOLE);
		from = (uint64_t)data < off + EDGE ? off
						   : (uint64_t)data - EDGE;
		to = hole < 0 || (uint64_t)hole > end - EDGE
			     ? end
			     : (uint64_t)hole + EDGE;
		read_span(from, to, got);
		off = to;
	}
	if (end > EDGE && off < end)
		read_span(end - EDGE, end, got);
}

static void read_sequentially(bool data_only)
{
	uint8_t *got = read_buffer();
	size_t i;

	if (!data_only)
		read_span(0, reference.bytes, got);
	else if (!reference.sparse && reference.bytes > EDGE)
		read_data(got);
	else if (!reference.sparse)
		read_span(0, reference.bytes, got);
	for (i = 0; data_only && i < reference.segs.n; i++)
		read_span(reference.segs.v[i].off,
			  reference.segs.v[i].off + reference.segs.v[i].len,
			  got);
	for (i = 0; data_only && i < reference.eio.n; i++)
		read_span(reference.eio.v[i].off,
			  reference.eio.v[i].off + reference.eio.v[i].len, got);
	free(got);
}

static void map_append(struct status_map *m, uint64_t off, uint64_t len,
		       uint32_t flags)
{
	struct status_extent *last = m->n ? &m->v[m->n - 1] : NULL;

	if (last && last->flags == flags) {
		last->len += len;
		return;
	}
	if (m->n == m->max) {
		m->max = m->max ? m->max * 2 : 1024;
		m->v = realloc(m->v, m->max * sizeof(*m->v));
		if (!m->v)
			die("out of memory");
	}
	m->v[m->n++] = (struct status_extent){ off, len, flags };
}

static int on_extents(void *opaque, const char *context, uint64_t offset,
		      uint32_t *entries, size_t n_entries, int *error)
{
	struct status_map *m = opaque;
	uint64_t off = offset;
	size_t i;

	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION))
		return 0;
	m->answers = n_entries / 2;
	m->first_len = n_entries ? entries[0] : 0;
	m->first_flags = n_entries ? entries[1] : 0;
	for (i = 0; i + 1 < n_entries; i += 2) {
		uint64_t len = entries[i];

		if (!len)
			differ("block status at %" PRIu64 " has length 0", off);
		/* The last one of a reply may promise more than was asked,
		 * but never more than there is. */
		if (len > m->disk_bytes - off) {
			differ("block status at %" PRIu64 " has length %" PRIu64
			       ", the disk ends at %" PRIu64,
			       off, len, m->disk_bytes);
			len = m->disk_bytes - off;
		}
		if (m->keep)
			map_append(m, off, len, entries[i + 1]);
		off += len;
	}
	m->end = off;
	return 0;
}

static void ask_status(struct status_map *m, uint64_t off, uint64_t len,
		       uint32_t flags)
{
	m->answers = 0;
	if (nbd_block_status(connections[0].nbd, len, off,
			     (nbd_extent_callback){ .callback = on_extents,
						    .user_data = m },
			     flags) < 0)
		differ("block status of %" PRIu64 " bytes at %" PRIu64
		       " failed: %s",
		       len, off, nbd_get_error());
	else if (!m->answers)
		differ("block status of %" PRIu64 " bytes at %" PRIu64
		       " was not answered",
		       len, off);
}

/* What a range that is told to be zero must be. */
static void check_zero(uint64_t off, uint64_t len, uint8_t *buf)
{
	uint64_t end = off + len;

	if (ranges_touch(&reference.eio, off, len)) {
		differ("block status tells %" PRIu64 " bytes at %" PRIu64
		       " are zero, but there is a range that cannot be read",
		       len, off);
		return;
	}
	/* A segment may hold zeroes: only its own bytes need a look. */
	while (off < end) {
		uint64_t step = end - off < READ_MAX ? end - off : READ_MAX;
		uint64_t i;

		if (reference.sparse) {
			size_t s = ranges_find(&reference.segs, off);

			if (s == reference.segs.n ||
			    reference.segs.v[s].off >= end)
				return;
			if (reference.segs.v[s].off > off) {
				off = reference.segs.v[s].off;
				continue;
			}
		} else {
			off_t data = lseek(reference.fd, (off_t)off, SEEK_DATA);

			if (data < 0 || (uint64_t)data >= end)
				return;
			if ((uint64_t)data > off) {
				off = (uint64_t)data;
				continue;
			}
		}
		reference_read(buf, step, off);
		for (i = 0; i < step && !buf[i]; i++)
			;
		if (i < step) {
			differ("block status tells byte %" PRIu64
			       " is zero, the reference has 0x%02x",
			       off + i, buf[i]);
			return;
		}
		off += step;
	}
}

static void check_status(struct status_map *m)
{
	uint8_t *buf = read_buffer();
	uint64_t rng = seed * 31 + 17;
	uint64_t off = 0;
	size_t i;

	m->keep = true;
	while (off < reference.bytes && !atomic_load(&failed)) {
		uint64_t len = reference.bytes - off;

		ask_status(m, off, len < STATUS_STEP ? len : STATUS_STEP, 0);
		if (m->end <= off)
			break;
		off = m->end;
	}
	m->keep = false;
	if (off != reference.bytes)
		differ("block status covers %" PRIu64 " of %" PRIu64 " bytes",
		       off, reference.bytes);
	for (i = 0; i < m->n && !atomic_load(&failed); i++)
		if (m->v[i].flags & LIBNBD_STATE_ZERO)
			check_zero(m->v[i].off, m->v[i].len, buf);
	for (i = 0; i < status_probes && !atomic_load(&failed); i++) {
		struct status_extent *e;
		size_t len, lo = 0, hi = m->n;

		pick_range(&rng, &off, &len);
		ask_status(m, off, len, LIBNBD_CMD_FLAG_REQ_ONE);
		if (m->answers != 1 || m->first_len > len)
			differ("block status of %zu bytes at %" PRIu64
			       " with REQ_ONE: %zu answers, the first of %" PRIu64
			       " bytes",
			       len, off, m->answers, m->first_len);
		while (hi - lo > 1) {
			size_t mid = lo + (hi - lo) / 2;

			if (m->v[mid].off <= off)
				lo = mid;
			else
				hi = mid;
		}
		e = &m->v[lo];
		if (e->flags != m->first_flags ||
		    m->first_len > e->off + e->len - off)
			differ("block status at %" PRIu64 " is %" PRIu32
			       " for %" PRIu64
			       " bytes, asked for the whole disk it was %" PRIu32
			       " for %" PRIu64,
			       off, m->first_flags, m->first_len, e->flags,
			       e->off + e->len - off);
	}
	free(buf);
}

static void print_map(const struct status_map *m, const char *path)
{
	FILE *f = fopen(path, "w");
	size_t i;

	if (!f)
		die("%s: %s", path, strerror(errno));
	fputs("[", f);
	for (i = 0; i < m->n; i++)
		fprintf(f,
			"%s\n{\"offset\": %" PRIu64 ", \"length\": %" PRIu64
			", \"hole\": %s, \"zero\": %s}",
			i ? "," : "", m->v[i].off, m->v[i].len,
			m->v[i].flags & LIBNBD_STATE_HOLE ? "true" : "false",
			m->v[i].flags & LIBNBD_STATE_ZERO ? "true" : "false");
	fputs("\n]\n", f);
	if (fclose(f))
		die("%s: %s", path, strerror(errno));
}

static void connect_all(const char *uri)
{
	size_t i;

	for (i = 0; i < CONNECTIONS; i++) {
		struct connection *c = &connections[i];

		pthread_mutex_init(&c->lock, NULL);
		pthread_cond_init(&c->moved, NULL);
		c->nbd = nbd_create();
		if (!c->nbd ||
		    nbd_add_meta_context(c->nbd,
					 LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
		    nbd_connect_uri(c->nbd, uri) < 0)
			die("%s", nbd_get_error());
	}
	if (nbd_can_meta_context(connections[0].nbd,
				 LIBNBD_CONTEXT_BASE_ALLOCATION) != 1)
		differ("the server does not offer base:allocation");
	if (nbd_is_read_only(connections[0].nbd) != 1)
		differ("the export is not read-only");
	if (nbd_can_multi_conn(connections[0].nbd) != 1)
		differ("the export does not permit several connections");
}

static uint64_t parse_number(const char *text, char **ret_end)
{
	uint64_t v;

	errno = 0;
	v = strtoull(text, ret_end, 0);
	if (errno || *ret_end == text)
		die("not a number: %s", text);
	return v;
}

static uint64_t parse_whole(const char *text)
{
	char *end;
	uint64_t v = parse_number(text, &end);

	if (*end)
		die("not a number: %s", text);
	return v;
}

static void load_segments(const char *path)
{
	FILE *f = fopen(path, "r");
	struct range s;

	if (!f)
		die("%s: %s", path, strerror(errno));
	while (fscanf(f, "%" SCNu64 " %" SCNu64 " %" SCNu64, &s.off, &s.len,
		      &s.file_off) == 3)
		ranges_add(&reference.segs, s);
	if (!feof(f))
		die("%s: not \"GUEST_OFF LEN FILE_OFF\"", path);
	fclose(f);
	reference.sparse = true;
}

static void load_reference(const char *path)
{
	struct stat st;

	reference.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (reference.fd < 0 || fstat(reference.fd, &st) < 0)
		die("%s: %s", path, strerror(errno));
	if (!reference.sparse)
		reference.bytes = (uint64_t)st.st_size;
}

static const char usage[] =
	"usage: nbd-compare [options] URI REFERENCE\n"
	"  --cluster BYTES    reads cluster around its multiples (65536)\n"
	"  --seed N           of the random reads (the time)\n"
	"  --reads N          random reads a thread (40)\n"
	"  --eio OFF:LEN      reads that touch this range fail with EIO;\n"
	"                     may repeat, ascending\n"
	"  --maybe OFF:LEN    reads that touch this range may fail so\n"
	"  --segments FILE    where REFERENCE's bytes lie, else zero\n"
	"  --size BYTES       with --segments: of the disk\n"
	"  --sequential HOW   all, data (and ends of holes) or none (all)\n"
	"  --map FILE         write the merged block status as JSON\n";

/* What the command line says beside what is compared. */
struct options {
	const char *map_path; /* NULL: none is printed */
	const char *sequential;
};

static void add_range(struct ranges *to, const char *text)
{
	struct range r;
	char *end;

	r.off = parse_number(text, &end);
	if (*end != ':')
		die("not OFF:LEN: %s", text);
	r.len = parse_whole(end + 1);
	ranges_add(to, r);
}

static void take_option(struct options *o, int opt, const char *value)
{
	switch (opt) {
	case 'c':
		cluster_bytes = parse_whole(value);
		break;
	case 's':
		seed = parse_whole(value);
		break;
	case 'r':
		reads_per_thread = (unsigned int)parse_whole(value);
		break;
	case 'e':
		add_range(&reference.eio, value);
		break;
	case 'y':
		add_range(&reference.maybe, value);
		break;
	case 'g':
		load_segments(value);
		break;
	case 'z':
		reference.bytes = parse_whole(value);
		break;
	case 'q':
		o->sequential = value;
		break;
	case 'm':
		o->map_path = value;
		break;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		fputs(usage, stderr);
		exit(2);
	}
}

static void take_options(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{ "cluster", required_argument, NULL, 'c' },
		{ "seed", required_argument, NULL, 's' },
		{ "reads", required_argument, NULL, 'r' },
		{ "eio", required_argument, NULL, 'e' },
		{ "maybe", required_argument, NULL, 'y' },
		{ "segments", required_argument, NULL, 'g' },
		{ "size", required_argument, NULL, 'z' },
		{ "sequential", required_argument, NULL, 'q' },
		{ "map", required_argument, NULL, 'm' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		take_option(o, opt, optarg);
	if (argc - optind == 2 && cluster_bytes &&
	    (!strcmp(o->sequential, "all") || !strcmp(o->sequential, "data") ||
	     !strcmp(o->sequential, "none")))
		return;
	fputs(usage, stderr);
	exit(2);
}

static void compare_all(const struct options *o, struct status_map *map)
{
	map->disk_bytes = (uint64_t)nbd_get_size(connections[0].nbd);
	if (map->disk_bytes != reference.bytes)
		differ("the export has %" PRIu64
		       " bytes, the reference has %" PRIu64,
		       map->disk_bytes, reference.bytes);
	if (!reference.bytes || atomic_load(&failed))
		return;
	read_randomly();
	if (strcmp(o->sequential, "none"))
		read_sequentially(!strcmp(o->sequential, "data"));
	if (!atomic_load(&failed))
		check_status(map);
}

int main(int argc, char **argv)
{
	struct options o = { .sequential = "all" };
	struct status_map map = { 0 };
	size_t i;

	seed = (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
	take_options(&o, argc, argv);
	load_reference(argv[optind + 1]);
	connect_all(argv[optind]);
	compare_all(&o, &map);
	if (o.map_path)
		print_map(&map, o.map_path);
	free(map.v);
	for (i = 0; i < CONNECTIONS; i++) {
		nbd_shutdown(connections[i].nbd, 0);
		nbd_close(connections[i].nbd);
	}
	if (atomic_load(&failed))
		return 1;
	printf("equal: size=%" PRIu64 " reads=%" PRIuFAST64
	       " refused=%" PRIuFAST64 " bytes=%" PRIuFAST64
	       " extents=%zu seed=%" PRIu64 "\n",
	       reference.bytes, atomic_load(&reads_done),
	       atomic_load(&reads_refused), atomic_load(&bytes_compared), map.n,
	       seed);
	return 0;
}
