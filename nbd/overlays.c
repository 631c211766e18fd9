/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "formats/backing-name.h"
#include "iouring/write.h"
#include "nbd/export-name.h"
#include "nbd/keep.h"
#include "nbd/overlays.h"

#define SUFFIX	       ".qcow2"
#define NAME_MAX_BYTES 128U

static struct overlay_options overlay_options(const struct config *c)
{
	struct overlay_options o = { .detect = c->detect,
				     .bytes_max = c->overlay_bytes_max,
				     .free_min = c->overlay_free_min,
				     .log = true };

	config_open_options(c, &o.open);
	return o;
}

/* How long the folder in @path is, its slash included. */
static size_t folder_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) + 1 : 0;
}

/* As the new file names the image: alone where both lie in one folder. */
static const char *base_name(const char *path, const char *image)
{
	size_t n = folder_len(image);

	return n == folder_len(path) && !strncmp(path, image, n) ? image + n
								 : image;
}

int overlays_base_format(const struct image *base, char ret[LAYER_FORMAT_BYTES],
			 struct error *err)
{
	const struct layer *top = base->chain.layers[0];

	if (layer_is_member(top))
		return error_set(err, -EINVAL, 0,
				 "%s: a file cannot name the member of a "
				 "container, or what is compressed, as its "
				 "base; %s can be over it",
				 top->path,
				 AS_GIVEN("overlay=temp", "--overlay temp"));
	return layer_declare(top, ret, err);
}

int overlays_base_name(const struct image *base, const char *name, char **ret,
		       struct error *err)
{
	const struct layer *top = base->chain.layers[0];
	const char *inner = top->ops->folder_file;
	CLEANUP(freep) char *path = NULL;
	size_t n = strlen(name);

	if (!inner || top->src->root != top->src ||
	    strcmp(top->path + folder_len(top->path), inner) != 0 ||
	    !strcmp(name + folder_len(name), inner))
		return backing_name_write(name, ret, err);
	if (asprintf(&path, "%s%s%s", name, n && name[n - 1] == '/' ? "" : "/",
		     inner) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	return backing_name_write(path, ret, err);
}

/* Who writes an image from now on must not be let to, nor be under way. */
static int hold(struct image *base, struct error *err)
{
	unsigned int i;
	int r = 0;

	for (i = 0; i < base->chain.depth && r >= 0; i++)
		r = layer_hold(base->chain.layers[i], err);
	return r;
}

enum making {
	MAKE_NOW, /* where there is none */
	MAKE_LATER, /* with the first change */
	MAKE_STANDBY, /* the same; where it is another process's, when it is not */
	MAKE_WANTED, /* now, whatever overlays-create says; -EEXIST */
};

/*
 * May there be a file @path, which there is not yet? What would keep it from
 * being made is told who connects, not who writes first.
 */
static int check_may_be(const struct config *c, const char *path,
			enum making making, struct error *err)
{
	size_t n = folder_len(path);
	CLEANUP(freep) char *folder = n ? strndup(path, n) : strdup(".");
	CLEANUP(freep) char *orphan = NULL;
	struct statvfs st;
	int r;

	if (!folder)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = overlay_find_orphan(path, &orphan, err);
	if (r < 0)
		return r;
	if (orphan)
		return error_set(err, -EEXIST, 0,
				 "%s is not there, but its snapshot %s is: an "
				 "empty disk is not put in its place (give it "
				 "its file back, or move its snapshots away)",
				 path, orphan);
	if (c->overlays_explicit && making != MAKE_WANTED)
		return error_set(err, -ENOENT, 0,
				 "there is no overlay %s: \"platter overlay "
				 "create\" makes one (%s)",
				 path + n,
				 AS_GIVEN("overlays-create=explicit",
					  "--overlays-create explicit"));
	if (access(folder, W_OK | X_OK) < 0)
		return error_set(err, -errno, 0,
				 "%s: no overlay can be made here: %s", folder,
				 errno_text(errno));
	if (c->overlay_free_min && !statvfs(folder, &st) &&
	    (uint64_t)st.f_bavail * st.f_frsize < c->overlay_free_min)
		return error_set(err, -ENOSPC, 0,
				 "%s: no overlay can be made here: less than "
				 "%" PRIu64 " bytes are free",
				 folder, c->overlay_free_min);
	return 0;
}

static int open_file(const struct config *c, const struct overlay_base *base,
		     const char *path, enum making making, struct overlay **ret,
		     struct error *err)
{
	struct overlay_options options = overlay_options(c);
	struct overlay_new n = { .bytes = base->image->bytes };
	CLEANUP(freep) char *name = NULL;
	char format[LAYER_FORMAT_BYTES];
	int r = hold(base->image, err);

	n.base_format = format;
	if (r >= 0)
		r = overlays_base_format(base->image, format, err);
	if (r >= 0)
		r = overlays_base_name(base->image, base_name(path, base->path),
				       &name, err);
	if (r < 0)
		return r;
	n.base_name = name;
	if (c->snapshot && !*base->id)
		return error_set(err, -EINVAL, 0,
				 "overlay: a file cannot name the snapshot "
				 "\"%s\" as its base; %s can be over it",
				 c->snapshot,
				 AS_GIVEN("overlay=temp", "--overlay temp"));
	if (access(path, F_OK) < 0) {
		r = making == MAKE_NOW ? 0 : check_may_be(c, path, making, err);
		if (r < 0)
			return r;
		if (making != MAKE_NOW && making != MAKE_WANTED)
			return overlay_open_unmade(path, base->image, &n,
						   &options, ret, err);
		r = overlay_create(path, &n, err);
	} else if (making == MAKE_WANTED) {
		return error_set(err, -EEXIST, 0, "%s is there already", path);
	}
	if (r == -EEXIST && making == MAKE_NOW) {
		error_clear(err); /* somebody else was as quick */
		r = 0;
	}
	if (r >= 0)
		r = overlay_open(path, base->image, n.base_name, &options, ret,
				 err);
	if (r != -EBUSY || making != MAKE_STANDBY)
		return r;
	error_clear(err);
	return overlay_open_standby(path, base->image, n.base_name, &options,
				    ret, err);
}

int overlays_pull(struct overlay *o, const struct overlay_base *base, bool same,
		  int (*progress)(void *opaque, uint64_t done_bytes),
		  void *opaque, struct error *err)
{
	CLEANUP(freep) char *name = NULL;
	char format[LAYER_FORMAT_BYTES];
	struct overlay_pull_to to = { .base = base->image,
				      .format = format,
				      .same = same };
	int r = overlays_base_format(base->image, format, err);

	if (r >= 0)
		r = overlays_base_name(base->image,
				       base_name(overlay_path(o), base->path),
				       &name, err);
	to.name = name;
	return r < 0 ? r : overlay_pull(o, &to, progress, opaque, err);
}

static int open_temp(const struct config *c, const struct overlay_base *base,
		     struct overlay **ret, struct error *err)
{
	struct overlay_options options = overlay_options(c);
	size_t i = config_overlay_of(c, base->id);
	const struct overlay_kept kept = { keep_disk(i), keep_log(i) };

	/* One of a connection's own is gone with the connection. */
	if (!c->overlay_per_connection && kept.fd >= 0 && kept.log_fd >= 0)
		options.kept = &kept;
	return overlay_open_temp(keep_folder(), base->image, &options, ret,
				 err);
}

int overlays_open_only(const struct config *c, const struct overlay_base *base,
		       struct overlay **ret, struct error *err)
{
	return c->overlay ? open_file(c, base, c->overlay, MAKE_NOW, ret, err)
			  : open_temp(c, base, ret, err);
}

/* Letters, digits, '-', '_' and dots, which do not come first. */
bool overlays_name_ok(const char *name)
{
	size_t i;

	if (!*name || *name == '.' || strlen(name) > NAME_MAX_BYTES)
		return false;
	for (i = 0; name[i]; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
			return false;
	return true;
}

/*
 * The folder of @project's overlays in that of overlays=, so that those of
 * different projects cannot meet; NULL: no memory.
 */
static char *project_folder(const struct config *c, const char *project)
{
	char *text = NULL;
	size_t bytes;
	FILE *fp = open_memstream(&text, &bytes);

	if (!fp)
		return NULL;
	fprintf(fp, "%s/", c->overlays);
	for (; *project; project++)
		fprintf(fp,
			isalnum((unsigned char)*project) ||
					strchr("-_", *project)
				? "%c"
				: "%%%02X",
			(unsigned char)*project);
	if (fclose(fp)) {
		free(text);
		return NULL;
	}
	return text;
}

static int make_folder(const char *path, struct error *err)
{
	if (mkdir(path, 0700) == 0)
		return sync_folder_of(path, err);
	return errno == EEXIST ? 0
			       : error_set(err, -errno, 0, "%s: %s", path,
					   errno_text(errno));
}

/*
 * Overlays of before there were name spaces lie in the folder itself. Whose
 * they are nobody can tell: no empty disk is shown in the place of one.
 */
static int check_ownerless(const char *old, const char *path, struct error *err)
{
	CLEANUP(freep) char *orphan = NULL;
	int r;

	if (!access(path, F_OK))
		return 0;
	r = overlay_find_orphan(old, &orphan, err);
	if (r < 0 || (!orphan && access(old, F_OK)))
		return r;
	return error_set(err, -EEXIST, 0,
			 "%s is of nobody's project: if it is this one's, move "
			 "it, with its snapshots, to %s",
			 old, path);
}

static int open_in_project(const struct config *c,
			   const struct overlay_base *base, const char *project,
			   const char *file, enum making making,
			   struct overlay **ret, struct error *err)
{
	CLEANUP(freep) char *folder = project_folder(c, project);
	CLEANUP(freep) char *path = NULL;
	CLEANUP(freep) char *old = NULL;
	int r;

	if (!folder || asprintf(&path, "%s/%s", folder, file) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (asprintf(&old, "%s/%s", c->overlays, file) < 0) {
		old = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	r = check_ownerless(old, path, err);
	if (r >= 0)
		r = make_folder(folder, err);
	return r < 0 ? r : open_file(c, base, path, making, ret, err);
}

static int open_named(const struct config *c, const struct overlay_base *base,
		      const char *name, enum making making,
		      struct overlay **ret, struct error *err)
{
	const char *colon = strrchr(name, ':');
	const char *own = colon ? colon + 1 : name;
	const struct export_name bare = { .image = (char *)base->id };
	CLEANUP(freep) char *id = export_name_format(&bare);
	CLEANUP(freep) char *file = NULL;
	CLEANUP(freep) char *where = NULL;

	if (!id)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (!c->overlays)
		return error_set(err, -ENOENT, 0,
				 "there is no export \"+%s\": %s was not given",
				 name,
				 AS_GIVEN("overlays=DIR", "--overlays DIR"));
	if (!overlays_name_ok(own) || colon == name || (colon && !*base->id))
		return error_set(err, -ENOENT, 0,
				 "there is no export \"+%s\": an overlay's "
				 "name is of letters, digits, '-', '_' and "
				 "'.', at most %u",
				 name, NAME_MAX_BYTES);
	if (asprintf(&file, "%s%s%s" SUFFIX, id, *id ? "+" : "", own) < 0) {
		file = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	where = strndup(name, colon ? (size_t)(colon - name) : 0);
	if (where && *where)
		return open_in_project(c, base, where, file, making, ret, err);
	free(where);
	if (asprintf(&where, "%s/%s", c->overlays, file) < 0)
		where = NULL;
	return where ? open_file(c, base, where, making, ret, err)
		     : error_set(err, -ENOMEM, 0, "out of memory");
}

int overlays_open_named(const struct config *c, const struct overlay_base *base,
			const char *name, unsigned int how,
			struct overlay **ret, struct error *err)
{
	enum making making = how & OVERLAYS_STANDBY ? MAKE_STANDBY : MAKE_LATER;

	return open_named(c, base, name,
			  how & OVERLAYS_WANTED ? MAKE_WANTED : making, ret,
			  err);
}

struct relay {
	int (*each)(void *opaque, const char *name);
	void *opaque;
};

static int relay_name(void *opaque, const char *file)
{
	struct relay *r = opaque;
	size_t len = strlen(file), end = strlen(SUFFIX);
	CLEANUP(freep) char *name = NULL;
	const char *own;

	if (len <= end || strcmp(file + len - end, SUFFIX) != 0 ||
	    asprintf(&name, "%s%.*s", strchr(file, '+') ? "" : "+",
		     (int)(len - end), file) < 0) {
		name = NULL;
		return 0;
	}
	own = strchr(name, '+');
	return overlays_name_ok(own + 1) ? r->each(r->opaque, name) : 0;
}

int overlays_each(const struct config *c,
		  int (*each)(void *opaque, const char *name), void *opaque)
{
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	struct relay relay = { each, opaque };
	int r;

	if (!c->overlays)
		return 0;
	r = folder_open(c->overlays, &folder, NULL);
	return r < 0 ? r : folder_for_each(folder, relay_name, &relay);
}
