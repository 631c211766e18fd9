/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A container: a file whose bytes are other files, its members, disks among them.
 * It knows nothing of what is in them: a member is a source, and a place in which
 * names inside it lead to other members.
 *
 * Nobody asks for one: a file whose format was not declared is looked at, and a
 * file that is a container and a disk at once is taken for neither, since a guest
 * can write what begins a container into its disk.
 *
 * A new container is one file here with one const struct container_ops, and one
 * line in open.c.
 */
#ifndef FORMATS_CONTAINERS_CONTAINER_H
#define FORMATS_CONTAINERS_CONTAINER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/place.h"
#include "iouring/error.h"
#include "iouring/source.h"

/* Of a container: what its index may take of memory. */
#define MEMBERS_MAX	  100000U
#define MEMBER_NAME_MAX	  4096U /* bytes */
#define MEMBERS_NAMES_MAX (16U << 20) /* bytes of all names */
#define MEMBERS_RUNS_MAX  (1U << 20) /* of all sparse ones */

/* [@at, @at + @len) of a member lies at @off in the container. */
struct member_run {
	uint64_t at, len, off;
};

struct member {
	char *name; /* without "./" and "/" before it; never "" */
	uint64_t off; /* of its bytes in the container */
	uint64_t bytes;
	/* Of one that is stored without its holes: what there is, in order. */
	struct member_run *runs;
	size_t n_runs;
	bool sparse;
	bool outside; /* a file of the container's place */
	const char *unreadable; /* why it cannot be read; static; or NULL */
};

struct container;

struct container_ops {
	const char *name; /* "tar" */
	const char *what; /* "a tar archive" */

	/* Does what begins with these bytes look like one? */
	bool (*probe)(const uint8_t *head, size_t bytes);

	/* container_add()s all members in their order. 0 or a negative errno. */
	int (*list)(struct container *c, struct error *err);
};

/* Immutable once open, and counted; any thread. */
struct container {
	atomic_uint refs;
	const struct container_ops *ops;
	struct source *src;
	struct place *place; /* where it lies; NULL: its names lead nowhere */
	char *path; /* as it was opened, for messages */
	struct member *members;
	size_t n;
	size_t names_bytes, n_runs;
	uint32_t *sorted; /* members by name, of one the last last */
	size_t n_sorted;
};

/*
 * open.c: is @src, which lies in @place (NULL: nowhere) and was opened as @path, a
 * container? Then *ret is it, the caller's to container_unref(); else *ret is NULL. -EBADMSG: it is damaged, or, unless the
 * user has @chosen a member, a disk, too.
 */
int container_open(struct source *src, struct place *place, const char *path,
		   bool chosen, struct container **ret, struct error *err);

/* Does what begins so look like one? */
bool container_is(const uint8_t *head, size_t bytes);

struct container *container_ref(struct container *c);
void container_unref(struct container *c); /* NULL is fine */
void container_unrefp(struct container **c);

/*
 * For list(): one more. Its name is copied, and cut of what is before it; its runs
 * are the container's, on failure too. One that is called like a folder is none.
 */
int container_add(struct container *c, const struct member *m,
		  struct error *err);

/* For container_open(): those that were added so far are found by name quickly. */
int container_sort(struct container *c, struct error *err);

/*
 * The last member of that name, "./" before it or not; NULL: there is none. After
 * container_sort(), of those that it has sorted.
 */
const struct member *container_find(const struct container *c,
				    const char *name);

/*
 * choose.c: the member called @name; NULL: the one disk that there is. -ENOTUNIQ:
 * there are several, which the refusal lists; -EINVAL: none.
 */
int container_choose(const struct container *c, const char *name,
		     const struct member **ret, struct error *err);

/* For list(): the file of the place that is called @name, if it is there. */
int container_add_file(struct container *c, const char *name,
		       struct error *err);

/*
 * Calls @each with those of which one would be chosen, so many as are looked for,
 * until it returns non-zero, and returns that.
 */
int container_each_disk(const struct container *c,
			int (*each)(void *opaque, const struct member *m),
			void *opaque);

/* The member as a source, the caller's. */
int container_open_member(const struct container *c, const struct member *m,
			  struct source **ret, struct error *err);

/*
 * Where names inside @m lead: to members, from @m's folder on. The caller's to
 * place_unref(); NULL: no memory.
 */
struct place *container_place(struct container *c, const struct member *m);

/*
 * The member that @name leads to from the folder of @from on; NULL: none, or out of
 * the container.
 */
const struct member *container_find_beside(const struct container *c,
					   const struct member *from,
					   const char *name);

/* tar.c, ovf-files.c */
extern const struct container_ops container_tar, container_ovf;

#endif
