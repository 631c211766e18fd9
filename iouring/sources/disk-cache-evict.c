/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "iouring/sources/disk-cache-inside.h"
#include "iouring/write.h"

#define OBJECTS_MAX 65536U /* that are looked at */
#define VICTIMS_MAX 256U /* chunks at a time */

/* ---- files that nobody has open ---- */

struct object {
	char name[KEPT_NAME_BYTES];
	struct timespec used;
	uint64_t bytes;
};

struct objects {
	struct object *list;
	size_t n;
	uint64_t bytes; /* of all that lies there */
};

static bool is_open(const char *name, struct cached *const *open, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (atomic_load(&open[i]->has_file) &&
		    !strcmp(open[i]->f.name, name))
			return true;
	return false;
}

static uint64_t room_of(const struct stat *st)
{
	return (uint64_t)st->st_blocks * 512;
}

/* One of its two files; "NAME.map" is what tells of its use. */
static void look_at(struct objects *o, int dir, const char *file,
		    struct cached *const *open, size_t n_open)
{
	const char *dot = strchr(file, '.');
	struct stat map = { 0 }, data = { 0 };
	struct object *new;
	char other[64];

	if (!dot || dot - file != KEPT_NAME_BYTES - 1)
		return;
	if (strcmp(dot, ".map") != 0) {
		/* Data without a map are nobody's: a removal was cut off. */
		snprintf(other, sizeof(other), "%.32s.map", file);
		if (!strcmp(dot, ".data") &&
		    fstatat(dir, other, &map, AT_SYMLINK_NOFOLLOW) < 0)
			unlinkat(dir, file, 0);
		return;
	}
	snprintf(other, sizeof(other), "%.32s.data", file);
	if (fstatat(dir, file, &map, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	fstatat(dir, other, &data, AT_SYMLINK_NOFOLLOW);
	o->bytes += room_of(&map) + room_of(&data);
	new = o->n < OBJECTS_MAX ? reallocarray(o->list, o->n + 1, sizeof(*new))
				 : NULL;
	if (!new)
		return;
	o->list = new;
	new += o->n;
	*new = (struct object){ .used = map.st_mtim,
				.bytes = room_of(&map) + room_of(&data) };
	memcpy(new->name, file, KEPT_NAME_BYTES - 1);
	o->n += !is_open(new->name, open, n_open);
}

static void look(struct objects *o, int dir, struct cached *const *open,
		 size_t n_open)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((e = readdir(d)))
		look_at(o, dir, e->d_name, open, n_open);
	closedir(d);
}

static int compare_use(const void *a, const void *b)
{
	const struct timespec *x = &((const struct object *)a)->used;
	const struct timespec *y = &((const struct object *)b)->used;

	if (x->tv_sec != y->tv_sec)
		return x->tv_sec < y->tv_sec ? -1 : 1;
	return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

/* ---- chunks of those that are open ---- */

/* Unless it was used since the hand was here last. */
static bool is_victim(struct cached *c, size_t chunk)
{
	unsigned char bit = (unsigned char)(1U << chunk % 8);

	return kept_has(&c->f, chunk) &&
	       !(atomic_fetch_and(&c->used[chunk / 8], (unsigned char)~bit) &
		 bit);
}

/* Claims some, as much as @bytes, going round twice at most. */
static size_t find_victims(struct cached *c, uint64_t bytes,
			   struct cache_flight **ret)
{
	size_t i, n = 0, most = c->f.n_chunks * 2;

	if (bytes / KEPT_CHUNK_BYTES < VICTIMS_MAX)
		bytes += KEPT_CHUNK_BYTES - 1;
	for (i = 0; i < most && n < VICTIMS_MAX && n < bytes / KEPT_CHUNK_BYTES;
	     i++) {
		if (is_victim(c, c->hand))
			ret[n] = claim_chunk(c, c->hand);
		else
			ret[n] = NULL;
		n += !!ret[n];
		c->hand = (c->hand + 1) % c->f.n_chunks;
	}
	return n;
}

/*
 * First nobody reads them any more, then the disk says that they are gone, and
 * then they are.
 */
static uint64_t take_away(struct cached *c, struct cache_flight **victims,
			  size_t n)
{
	uint64_t freed = 0;
	size_t i;
	int r;

	atomic_fetch_add(&c->taken, 1);
	pthread_rwlock_wrlock(&c->gate);
	for (i = 0; i < n; i++)
		kept_take(&c->f, victims[i]->chunk);
	pthread_rwlock_unlock(&c->gate);
	r = kept_flush(&c->f, NULL);
	for (i = 0; i < n; i++) {
		size_t chunk = victims[i]->chunk;
		size_t len = kept_chunk_bytes(&c->f, chunk);

		if (r >= 0 &&
		    !source_punch(c->f.data, (uint64_t)chunk * KEPT_CHUNK_BYTES,
				  len, NULL))
			freed += len;
		land_chunk(c, victims[i], -EAGAIN);
	}
	atomic_store(&c->whole, false);
	return freed;
}

static uint64_t evict_chunks(struct cached *c, uint64_t bytes)
{
	struct cache_flight *victims[VICTIMS_MAX];
	uint64_t freed = 0, more;
	size_t n;

	while (freed < bytes && !atomic_load(&c->pinned) &&
	       !atomic_load(&c->checking) && atomic_load(&c->has_file) &&
	       !atomic_load(&c->f.broken)) {
		n = find_victims(c, bytes - freed, victims);
		more = n ? take_away(c, victims, n) : 0;
		if (!more)
			break;
		freed += more;
	}
	return freed;
}

uint64_t cache_evict(int dir, uint64_t bytes, struct cached *const *open,
		     size_t n_open, uint64_t *ret_freed)
{
	struct objects o = { 0 };
	uint64_t freed = 0;
	size_t i;

	look(&o, dir, open, n_open);
	if (o.n)
		qsort(o.list, o.n, sizeof(*o.list), compare_use);
	for (i = 0; i < o.n && o.bytes - freed > bytes; i++)
		if (!kept_remove(dir, o.list[i].name))
			freed += o.list[i].bytes;
	free(o.list);
	/* A share of each, as nobody knows whose are used least. */
	for (i = 0; i < n_open && o.bytes - freed > bytes; i++)
		freed += evict_chunks(
			open[i], (o.bytes - freed - bytes) / (n_open - i) + 1);
	*ret_freed = freed;
	return o.bytes - min_u64(freed, o.bytes);
}
