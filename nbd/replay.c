/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One thread an image takes the trace window by window, each twice as large as the
 * one before: where the ranges of one lie in files is found out, neighbours are
 * joined to runs as long as a request, and these are put in a queue, in the order in
 * which the first of each is needed. READERS threads fetch from there. They are few,
 * for they share the link: what is needed first is there first, and while it is
 * used the next comes. The next window is there before the queue is empty.
 */
#include "nbd/replay.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "iouring/sources/disk-cache.h"
#include "iouring/sources/glance-about.h"
#include "iouring/sources/http.h"
#include "iouring/sources/url.h"
#include "nbd/export-name.h"
#include "nbd/trace.h"

/* Of an image of Glance's: the id of the image that is its trace. */
#define GLANCE_PROPERTY "platter_trace"
#define HEAD_BYTES	(64U << 10) /* of a file, which may be no trace */
#define REPLAYS_MAX	64U /* images at a time; others are read without */
#define READERS		4U
#define RUN_BYTES_MAX	(1U << 20) /* a request's, at once */
#define PIECE_BYTES	(256U << 10) /* of the cache: comes whole */
#define GAP_BYTES	PIECE_BYTES
#define WINDOW_MIN	(4ULL << 20) /* of the disk */
#define WINDOW_MAX	(64ULL << 20)
#define RUNS_MAX	65536U /* of a window */

struct run {
	struct source *src; /* the image's */
	uint64_t off, end;
	size_t order; /* in which it is needed */
};

struct replay {
	struct replay *next;
	struct image *img;
	char *path, *trace; /* trace NULL: beside path */
	pthread_t thread;
	bool ended; /* under the lock */

	/* Of the window that is looked at. */
	struct run *runs;
	size_t n_runs;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	struct run *queue;
	size_t n_queued, n_taken; /* those before it are taken */
	bool complete; /* nothing is added any more */
};

static struct {
	void (*say)(const char *line);
	pthread_mutex_t lock;
	struct replay *all;
	unsigned int n;
	bool running;
	atomic_bool stopping;
	atomic_uint_fast64_t bytes;
} replays = { .lock = PTHREAD_MUTEX_INITIALIZER };

void replay_configure(void (*say)(const char *line))
{
	replays.say = say;
}

uint64_t replay_bytes(void)
{
	return atomic_load_explicit(&replays.bytes, memory_order_relaxed);
}

static void replay_free(struct replay *r)
{
	image_unref(r->img);
	free(r->path);
	free(r->trace);
	free(r->runs);
	free(r->queue);
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* ---- the file ---- */

/* *@is_one: it begins like a trace. */
static int read_trace(struct source *src, struct trace *ret, bool *is_one,
		      struct error *err)
{
	CLEANUP(freep) char *text = NULL;
	size_t len = (size_t)min_u64(src->bytes, TRACE_FILE_BYTES_MAX);
	int r;

	text = malloc(len + 1);
	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(src, text, min_size(len, HEAD_BYTES), 0, err);
	if (r < 0)
		return r;
	*is_one = len >= strlen(TRACE_MAGIC) &&
		  !memcmp(text, TRACE_MAGIC, strlen(TRACE_MAGIC));
	if (src->bytes > TRACE_FILE_BYTES_MAX)
		return error_set(err, -EFBIG, 0, "has over %u bytes",
				 TRACE_FILE_BYTES_MAX);
	if (*is_one && len > HEAD_BYTES)
		r = source_read(src, text + HEAD_BYTES, len - HEAD_BYTES,
				HEAD_BYTES, err);
	return r < 0 ? r : trace_parse(text, len, ret, err);
}

/* Not by the cache: it is small, and may be replaced. */
static int open_file(const char *name, struct source **ret, struct error *err)
{
	const struct http_wish wish = { .url = name,
					.named = true,
					.kept = true };

	return url_is_web(name) ? http_source_open(&wish, ret, err)
				: file_source_open(name, 0, ret, err);
}

static void complain(const char *name, struct error *err)
{
	CLEANUP(freep) char *people = url_for_people(name);

	if (!replays.say)
		return;
	error_prefix(err, "trace: %s", people ? people : "");
	replays.say(err->msg);
}

/*
 * @name is @given, the user's, or lies beside the image: most have none, and what is
 * there may be anything. false: it is no use.
 */
static bool load(const struct replay *r, const char *name, bool given,
		 struct trace *ret)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct error err = { 0 };
	bool tells = given;
	int code = open_file(name, &src, &err);

	if (code >= 0)
		code = read_trace(src, ret, &tells, &err);
	tells |= given;
	if (code >= 0 && ret->bytes != r->img->bytes) {
		trace_done(ret);
		code = error_set(&err, -EINVAL, 0,
				 "is of a disk of another size");
	}
	if (code < 0 && tells)
		complain(name, &err);
	return code >= 0;
}

/* *ret NULL: it has none, as most. */
static int find_of_glance(const struct replay *r, char **ret, struct error *err)
{
	const struct http_wish wish = { .url = r->path, .named = true };
	const json_t *id;
	json_t *about = NULL;
	const char *text;
	int code = glance_about(&wish, &about, err);

	id = json_object_get(about, GLANCE_PROPERTY);
	text = json_string_value(id);
	if (id && (!text || !export_name_is_id(text)))
		code = error_set(err, -EINVAL, 0,
				 "its " GLANCE_PROPERTY
				 " is not an image's id");
	else if (id && asprintf(ret, "glance://%s", text) < 0)
		*ret = NULL;
	json_decref(about);
	return code;
}

static bool load_of_glance(const struct replay *r, struct trace *ret)
{
	CLEANUP(freep) char *name = NULL;
	struct error err = { 0 };

	if (find_of_glance(r, &name, &err) < 0)
		complain(r->path, &err);
	return name && load(r, name, true, ret);
}

static bool find_trace(const struct replay *r, struct trace *ret)
{
	CLEANUP(freep) char *beside = NULL;

	if (r->trace)
		return load(r, r->trace, true, ret);
	if (glance_is_image(r->path))
		return load_of_glance(r, ret);
	if (asprintf(&beside, "%s.trace", r->path) < 0) {
		beside = NULL;
		return false;
	}
	return load(r, beside, false, ret);
}

/* ---- a window ---- */

/* In whole pieces of the cache, some to a run. */
static int add_run(void *opaque, uint64_t off, const struct extent *e)
{
	struct replay *r = opaque;
	uint64_t len = e->kind == EXTENT_DATA ? e->len : e->comp_bytes;
	uint64_t at = e->host_off / PIECE_BYTES * PIECE_BYTES, next, end;

	if (e->kind != EXTENT_DATA && e->kind != EXTENT_COMPRESSED)
		return 0;
	end = min_u64(round_up(e->host_off + len, PIECE_BYTES), e->src->bytes);
	for (; at < end && r->n_runs < RUNS_MAX; at = next) {
		next = min_u64(at + RUN_BYTES_MAX, end);
		r->runs[r->n_runs] =
			(struct run){ e->src, at, next, r->n_runs };
		r->n_runs++;
	}
	return r->n_runs == RUNS_MAX;
}

static int compare_places(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	if (x->src->id != y->src->id)
		return x->src->id < y->src->id ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

static int compare_orders(const void *a, const void *b)
{
	const struct run *x = a, *y = b;

	return x->order < y->order ? -1 : x->order > y->order;
}

/* Neighbours become one, but none longer than may be; none is in two. */
static void join_runs(struct replay *r)
{
	size_t i, n = 0;

	for (i = 0; i < r->n_runs; i++) {
		struct run *last = n ? &r->runs[n - 1] : NULL;
		struct run x = r->runs[i];

		if (last && last->src == x.src &&
		    x.off <= last->end + GAP_BYTES &&
		    x.end - last->off <= RUN_BYTES_MAX) {
			last->end = max_u64(last->end, x.end);
			last->order = min_size(last->order, x.order);
			continue;
		}
		if (last && last->src == x.src)
			x.off = max_u64(x.off, last->end);
		if (x.off < x.end)
			r->runs[n++] = x;
	}
	r->n_runs = n;
}

/* false: that was all. */
static bool take_run(struct replay *r, struct run *ret)
{
	bool is;

	pthread_mutex_lock(&r->lock);
	while (r->n_taken == r->n_queued && !r->complete)
		pthread_cond_wait(&r->changed, &r->lock);
	is = r->n_taken < r->n_queued && !atomic_load(&replays.stopping);
	if (is)
		*ret = r->queue[r->n_taken++];
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	return is;
}

static void *fetch_runs(void *opaque)
{
	struct run x;

	while (take_run(opaque, &x))
		source_prefetch(x.src, x.off, x.end - x.off);
	return NULL;
}

/* Behind what is in the queue still, when that is no more than is fetched next. */
static void add_window(struct replay *r)
{
	qsort(r->runs, r->n_runs, sizeof(*r->runs), compare_places);
	join_runs(r);
	qsort(r->runs, r->n_runs, sizeof(*r->runs), compare_orders);
	pthread_mutex_lock(&r->lock);
	while (r->n_queued - r->n_taken > READERS &&
	       !atomic_load(&replays.stopping))
		pthread_cond_wait(&r->changed, &r->lock);
	r->n_queued -= r->n_taken;
	memmove(r->queue, r->queue + r->n_taken,
		r->n_queued * sizeof(*r->queue));
	r->n_taken = 0;
	if (r->n_queued <= READERS) {
		memcpy(r->queue + r->n_queued, r->runs,
		       r->n_runs * sizeof(*r->runs));
		r->n_queued += r->n_runs;
	}
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
}

/* What cannot be, its reader is told. */
static void resolve(struct replay *r, const struct trace_range *t)
{
	uint64_t off = t->off, end = t->off + t->len;
	int code = 0;

	while (!code && off < end && !atomic_load(&replays.stopping))
		code = image_walk(r->img, off, end - off, add_run, r, &off,
				  NULL);
}

/* Ranges from @i on, about @bytes of them. Returns where the next window begins. */
static size_t take_window(struct replay *r, const struct trace *t, size_t i,
			  uint64_t bytes)
{
	uint64_t sum = 0;

	r->n_runs = 0;
	for (; i < t->n && sum < bytes; i++) {
		resolve(r, &t->ranges[i]);
		sum += t->ranges[i].len;
		atomic_fetch_add(&replays.bytes, t->ranges[i].len);
	}
	return i;
}

static void fetch_trace(struct replay *r, const struct trace *t)
{
	pthread_t readers[READERS];
	uint64_t window = WINDOW_MIN;
	unsigned int n = 0;
	size_t i = 0;

	while (n < READERS && !pthread_create(&readers[n], NULL, fetch_runs, r))
		n++;
	while (n && i < t->n && !atomic_load(&replays.stopping)) {
		i = take_window(r, t, i, window);
		add_window(r);
		window = min_u64(window * 2, WINDOW_MAX);
	}
	pthread_mutex_lock(&r->lock);
	r->complete = true;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	while (n)
		pthread_join(readers[--n], NULL);
}

static void *run_replay(void *opaque)
{
	struct replay *r = opaque;
	struct trace t = { 0 };

	r->runs = calloc(RUNS_MAX, sizeof(*r->runs));
	r->queue = calloc(RUNS_MAX + READERS, sizeof(*r->queue));
	if (r->runs && r->queue && find_trace(r, &t)) {
		fetch_trace(r, &t);
		trace_done(&t);
	}
	free(TAKE_PTR(r->runs));
	free(TAKE_PTR(r->queue));
	image_unref(TAKE_PTR(r->img));
	pthread_mutex_lock(&replays.lock);
	r->ended = true;
	pthread_mutex_unlock(&replays.lock);
	return NULL;
}

/* ---- its life ---- */

/* Under the lock: takes out those that have ended, or @all. */
static struct replay *take_ended(bool all)
{
	struct replay **at = &replays.all, *r, *ret = NULL;

	while ((r = *at)) {
		if (!all && !r->ended) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		r->next = ret;
		ret = r;
		replays.n--;
	}
	return ret;
}

static void reap(struct replay *list)
{
	struct replay *r;

	while ((r = list)) {
		list = r->next;
		if (r->thread)
			pthread_join(r->thread, NULL);
		replay_free(r);
	}
}

/* Under the lock. */
static void start_thread(struct replay *r)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	if (pthread_create(&r->thread, NULL, run_replay, r)) {
		r->thread = 0;
		r->ended = true;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Is any of its files kept on this machine's disk? */
static bool has_use(const struct image *img)
{
	unsigned int i;

	for (i = 0; i < img->chain.depth; i++) {
		if (img->chain.layers[i]->identity.kind == SOURCE_OBJECT)
			return disk_cache_is_on();
	}
	return false;
}

void replay_add(struct image *img, const char *path, const char *trace)
{
	struct replay *r, *ended;

	/* A query may be a signature, of that object alone. */
	if (!has_use(img) || (!trace && strchr(path, '?')))
		return;
	r = calloc(1, sizeof(*r));
	if (!r)
		return;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	r->img = image_ref(img);
	r->path = strdup(path);
	r->trace = trace ? strdup(trace) : NULL;
	pthread_mutex_lock(&replays.lock);
	ended = take_ended(false);
	if (!r->path || (trace && !r->trace) || replays.n == REPLAYS_MAX ||
	    atomic_load(&replays.stopping)) {
		r->next = ended;
		ended = r;
	} else {
		r->next = replays.all;
		replays.all = r;
		replays.n++;
		if (replays.running)
			start_thread(r);
	}
	pthread_mutex_unlock(&replays.lock);
	reap(ended);
}

void replay_start(void)
{
	struct replay *r;

	pthread_mutex_lock(&replays.lock);
	replays.running = true;
	for (r = replays.all; r; r = r->next)
		start_thread(r);
	pthread_mutex_unlock(&replays.lock);
}

void replay_stop(void)
{
	struct replay *all;

	atomic_store(&replays.stopping, true);
	pthread_mutex_lock(&replays.lock);
	all = take_ended(true);
	pthread_mutex_unlock(&replays.lock);
	reap(all);
}
