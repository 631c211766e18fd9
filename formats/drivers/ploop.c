/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ploop: expandable images of Parallels and Virtuozzo, alone or in a bundle.
 * After QEMU's docs/interop/parallels.txt. All little endian.
 *
 *	header of 64 bytes | BAT, 32-bit entries | clusters
 *
 * "WithoutFreeSpace" (version 1): entries count sectors, clusters are of any
 * number of sectors (63 is common), the size has 32 bits. "WithouFreSpacExt"
 * (version 2): entries count clusters, the size has 64 bits. Entry 0 is a
 * cluster that is not in this file: it shows the lower delta.
 *
 * A bundle is a folder whose DiskDescriptor.xml says which image files there
 * are, for which part of the disk (split storage), and how they stand upon
 * each other (ploop-bundle.h). A layer is what one GUID has of the disk, one
 * image file for each storage. It is opened by the descriptor (then it is the
 * top, or the snapshot that is asked for) or by one of its files, which finds
 * the descriptor beside it. Its parent is the layer of the parent's GUID,
 * named by one of that one's files; a raw ("Plain") base is a raw layer, or,
 * of a split disk, taken in here, since a raw file does not lead to the
 * others.
 *
 * An image that is marked as in use is read, and says so. A format extension
 * holds bitmaps, which a reader does not need; one that only writers have to
 * understand is named by info. Empty Image, the header's flag, is not believed:
 * writers leave it set.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/ploop-bundle.h"
#include "formats/drivers/ploop-delta.h"

/* What the layer has of [start, start + bytes) of the disk. */
struct part {
	uint64_t start;
	uint64_t bytes;
	struct delta delta;
	struct source *plain; /* below the delta; the layer's; may be NULL */
};

struct ploop_state {
	struct part *parts; /* by start, not overlapping */
	size_t n_parts;
	bool bundled; /* the next two are filled */
	struct guid guid;
	struct bundle bundle;
	bool names_damaged; /* there is a Snapshots.xml that was no use */
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/*
 * The name of an image file as the bundle's folder has it: bundles move, and
 * absolute paths, which may be of another system, do not move with them.
 */
static const char *image_name(const struct bundle_image *i)
{
	const char *base = i->file, *p;

	if (i->file[0] != '/' && !strchr(i->file, '\\'))
		return i->file;
	for (p = i->file; *p; p++)
		if ((*p == '/' || *p == '\\') && p[1])
			base = p + 1;
	return base;
}

typedef int parse_fn(const uint8_t *xml, size_t bytes, struct bundle *b,
		     struct error *err);

static int read_xml(struct source *xml, const char *what, parse_fn *parse,
		    struct bundle *b, struct error *err)
{
	CLEANUP(freep) uint8_t *buf = NULL;
	int r;

	if (xml->bytes > BUNDLE_XML_MAX)
		return error_set(err, -EFBIG, 0,
				 "%s of %" PRIu64
				 " bytes is over the limit of %u",
				 what, xml->bytes, BUNDLE_XML_MAX);
	buf = malloc((size_t)xml->bytes + 1);
	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(xml, buf, (size_t)xml->bytes, 0, err);
	return r < 0 ? r : parse(buf, (size_t)xml->bytes, b, err);
}

static int read_bundle(struct source *xml, struct bundle *ret,
		       struct error *err)
{
	return read_xml(xml, BUNDLE_XML_NAME, bundle_parse, ret, err);
}

/*
 * What the snapshots are called is in the folder of the machine, one up, which
 * allow= has to permit; or it was put beside the descriptor. Nothing depends
 * on it.
 */
static void read_names(struct layer *l)
{
	static const char *const places[] = { BUNDLE_NAMES_NAME,
					      "../" BUNDLE_NAMES_NAME };
	struct ploop_state *s = l->state;
	struct error why = { 0 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		CLEANUP(place_file_done) struct place_file xml = { 0 };

		if (place_open(
			    l->place,
			    &(struct place_ask){ .name = places[i],
						 .what = BUNDLE_NAMES_NAME,
						 .allow = &l->options->allow },
			    &xml, NULL, NULL) < 0)
			continue;
		s->names_damaged =
			read_xml(xml.src, BUNDLE_NAMES_NAME, bundle_parse_names,
				 &s->bundle, &why) < 0;
		return;
	}
}

/* Which GUID's is the file of this name? */
static bool find_own(const struct bundle *b, const char *name, struct guid *ret)
{
	size_t i, k;

	for (i = 0; i < b->n_storages; i++)
		for (k = 0; k < b->storages[i].n_images; k++) {
			const struct bundle_image *img =
				&b->storages[i].images[k];

			if (!strcmp(base_name(image_name(img)), name)) {
				*ret = img->guid;
				return true;
			}
		}
	return false;
}

/*
 * The descriptor beside an image file. There need not be one, and it need not
 * be about this file.
 */
static int find_bundle(struct layer *l, struct error *err)
{
	CLEANUP(place_file_done) struct place_file xml = { 0 };
	enum reference_verdict verdict;
	struct ploop_state *s = l->state;
	int r;

	if (l->options->alone)
		return 0;
	r = place_open(l->place,
		       &(struct place_ask){ .name = BUNDLE_XML_NAME,
					    .what = BUNDLE_XML_NAME,
					    .allow = &l->options->allow },
		       &xml, &verdict, NULL);
	if (r < 0 && verdict == REFERENCE_MISSING)
		return 0;
	if (r < 0)
		return error_set(err, r, 0,
				 "the " BUNDLE_XML_NAME
				 " beside it cannot be read: %s",
				 reference_verdict_text(verdict));
	r = read_bundle(xml.src, &s->bundle, err);
	if (r < 0)
		return r;
	s->bundled = find_own(&s->bundle, base_name(l->path), &s->guid);
	return 0;
}

/* The source of an image file: the one that we were opened by, or another. */
static int open_image(struct layer *l, const struct bundle_image *i,
		      struct source **ret, struct error *err)
{
	const char *name = image_name(i);

	if (!strcmp(base_name(name), base_name(l->path))) {
		*ret = l->src;
		return 0;
	}
	return layer_open_file(l, name, i->plain ? "plain image" : "delta", 0,
			       ret, err);
}

static int open_part(struct layer *l, struct part *p,
		     const struct bundle_storage *st, const struct guid *guid,
		     struct error *err)
{
	const struct bundle_image *i = bundle_image(st, guid);
	struct source *src;
	int r;

	if (!i)
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_XML_NAME
				 ": there is no image {%s} for the storage "
				 "that begins at sector %" PRIu64,
				 guid->text, st->start);
	r = open_image(l, i, &src, err);
	if (r < 0)
		return r;
	p->start = st->start * PLOOP_SECTOR_BYTES;
	p->bytes = (st->end - st->start) * PLOOP_SECTOR_BYTES;
	if (i->plain) {
		p->plain = src;
		return 0;
	}
	r = delta_open(src, &p->delta, err);
	if (r < 0)
		error_prefix(err, "%s", i->file);
	return r;
}

/* A raw base of a split disk lies below our own deltas. */
static int take_plain(struct layer *l, const struct guid *guid,
		      struct error *err)
{
	struct ploop_state *s = l->state;
	size_t i;
	int r = 0;

	for (i = 0; i < s->n_parts && !r; i++)
		if (s->parts[i].delta.src)
			r = open_image(
				l, bundle_image(&s->bundle.storages[i], guid),
				&s->parts[i].plain, err);
	return r;
}

static bool all_plain(const struct ploop_state *s)
{
	size_t i;

	for (i = 0; i < s->n_parts; i++)
		if (!s->parts[i].plain)
			return false;
	return true;
}

/* Names what the layer stands upon, by the first of its expandable files. */
static int open_parent(struct layer *l, struct error *err)
{
	struct ploop_state *s = l->state;
	struct guid guid = bundle_parent(&s->bundle, &s->guid);
	const struct bundle_image *i, *lead = NULL;
	size_t k;

	if (!guid.text[0] || all_plain(s) || !s->n_parts)
		return 0;
	for (k = 0; k < s->n_parts; k++) {
		i = bundle_image(&s->bundle.storages[k], &guid);
		if (!i)
			return error_set(err, -EBADMSG, 0,
					 BUNDLE_XML_NAME
					 ": there is no image {%s}, which {%s} "
					 "stands upon",
					 guid.text, s->guid.text);
		if (!lead || (lead->plain && !i->plain))
			lead = i;
	}
	if (lead->plain && s->n_parts > 1)
		return take_plain(l, &guid, err);
	return layer_set_parent_by_id(l, image_name(lead),
				      lead->plain ? "raw" : "ploop", 0, err);
}

/* Of a snapshot the size that it had, where one file tells it. */
static uint64_t bundle_bytes(const struct ploop_state *s)
{
	if (s->n_parts == 1 && s->parts[0].delta.src &&
	    !guid_equal(&s->guid, &s->bundle.top))
		return s->parts[0].delta.bytes;
	return s->bundle.disk_sectors * PLOOP_SECTOR_BYTES;
}

/* The storages are the disk, without gaps, and the top delta has its size. */
static int check_storages(const struct ploop_state *s, struct error *err)
{
	bool top = guid_equal(&s->guid, &s->bundle.top);
	uint64_t next = 0;
	size_t i;

	for (i = 0; i < s->n_parts; i++) {
		const struct part *p = &s->parts[i];

		if (p->start != next)
			return error_set(err, -EBADMSG, 0,
					 BUNDLE_XML_NAME
					 ": no storage has the sectors %" PRIu64
					 " to %" PRIu64,
					 next / PLOOP_SECTOR_BYTES,
					 p->start / PLOOP_SECTOR_BYTES);
		next = p->start + p->bytes;
		if (top && p->delta.src && p->delta.bytes < p->bytes)
			return error_set(err, -EBADMSG, 0,
					 BUNDLE_XML_NAME
					 ": a storage has %" PRIu64
					 " sectors, its top image %" PRIu64,
					 p->bytes / PLOOP_SECTOR_BYTES,
					 p->delta.bytes / PLOOP_SECTOR_BYTES);
	}
	if (next != s->bundle.disk_sectors * PLOOP_SECTOR_BYTES)
		return error_set(err, -EBADMSG, 0,
				 BUNDLE_XML_NAME ": Disk_size is %" PRIu64
						 " sectors, the storages have "
						 "%" PRIu64,
				 s->bundle.disk_sectors,
				 next / PLOOP_SECTOR_BYTES);
	return 0;
}

/* Among several images the shots alone tell what stands upon what. */
static int check_shot(const struct ploop_state *s, struct error *err)
{
	size_t i;

	for (i = 0; i < s->bundle.n_shots; i++)
		if (guid_equal(&s->bundle.shots[i].guid, &s->guid))
			return 0;
	if (s->bundle.storages[0].n_images == 1)
		return 0;
	return error_set(err, -EBADMSG, 0,
			 BUNDLE_XML_NAME ": no Shot tells what the image {%s} "
					 "stands upon",
			 s->guid.text);
}

static int open_bundled(struct layer *l, struct error *err)
{
	struct ploop_state *s = l->state;
	size_t i, n = s->bundle.n_storages;
	int r = 0;

	s->parts = calloc(n, sizeof(*s->parts));
	if (!s->parts)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < n && !r; i++, s->n_parts++)
		r = open_part(l, &s->parts[i], &s->bundle.storages[i], &s->guid,
			      err);
	if (r < 0)
		return r;
	l->bytes = bundle_bytes(s);
	r = check_storages(s, err);
	if (r >= 0)
		r = check_shot(s, err);
	return r < 0 ? r : open_parent(l, err);
}

static int open_alone(struct layer *l, struct error *err)
{
	struct ploop_state *s = l->state;
	int r;

	if (l->top && l->options->snapshot)
		return error_set(err, -ENOENT, 0,
				 "snapshot \"%s\": no " BUNDLE_XML_NAME
				 " beside the image tells of it",
				 l->options->snapshot);
	s->parts = calloc(1, sizeof(*s->parts));
	if (!s->parts)
		return error_set(err, -ENOMEM, 0, "out of memory");
	s->n_parts = 1;
	r = delta_open(l->src, &s->parts->delta, err);
	if (r < 0)
		return r;
	l->bytes = s->parts->bytes = s->parts->delta.bytes;
	return 0;
}

/* How many shots are called @name? *ret: the last of them. */
static unsigned int find_name(const struct bundle *b, const char *name,
			      struct guid *ret)
{
	unsigned int n = 0;
	size_t i;

	for (i = 0; i < b->n_shots; i++)
		if (b->shots[i].name && !strcmp(b->shots[i].name, name)) {
			*ret = b->shots[i].guid;
			n++;
		}
	return n;
}

/* A bundle's snapshots are its GUIDs: any image's, also the top's own. */
static int select_snapshot(struct layer *l, struct error *err)
{
	struct ploop_state *s = l->state;
	const char *name = l->options->snapshot;
	struct guid guid;
	unsigned int n = guid_parse(&guid, name)
				 ? 1
				 : find_name(&s->bundle, name, &guid);

	if (n > 1)
		return error_set(err, -EINVAL, 0,
				 "%u snapshots are called \"%s\": give the "
				 "GUID of one",
				 n, name);
	if (!n || !bundle_image(&s->bundle.storages[0], &guid))
		return error_set(err, -ENOENT, 0, "there is no snapshot \"%s\"",
				 name);
	s->guid = guid;
	return 0;
}

static bool is_delta(struct source *src)
{
	uint8_t magic[PLOOP_MAGIC_BYTES];

	return src->bytes >= sizeof(magic) &&
	       !source_read(src, magic, sizeof(magic), 0, NULL) &&
	       delta_magic_version(magic);
}

static void set_unit(struct layer *l)
{
	const struct ploop_state *s = l->state;
	uint64_t cluster = s->parts[0].delta.cluster_bytes;

	if (is_power_of_2(cluster))
		l->unit_bytes = cluster;
}

static int ploop_open(struct layer *l, struct error *err)
{
	struct ploop_state *s = l->state;
	int r;

	if (is_delta(l->src)) {
		r = find_bundle(l, err);
	} else {
		r = read_bundle(l->src, &s->bundle, err);
		s->bundled = true;
		s->guid = s->bundle.top;
	}
	if (r >= 0 && s->bundled && l->top && !l->options->alone)
		read_names(l);
	if (r >= 0 && s->bundled && l->top && l->options->snapshot)
		r = select_snapshot(l, err);
	if (r >= 0)
		r = s->bundled ? open_bundled(l, err) : open_alone(l, err);
	if (r >= 0)
		set_unit(l);
	return r;
}

static void ploop_close(struct layer *l)
{
	struct ploop_state *s = l->state;

	free(s->parts);
	bundle_done(&s->bundle);
}

/* The parent must have found itself in the same descriptor. */
static int ploop_check_parent(struct layer *l, struct layer *parent,
			      struct error *err)
{
	const struct ploop_state *s = l->state, *p = parent->state;
	struct guid want = bundle_parent(&s->bundle, &s->guid);

	if (parent->ops != l->ops)
		return 0; /* raw, as the descriptor says */
	if (!p->bundled || !guid_equal(&p->guid, &want))
		return error_set(err, -EBADMSG, 0,
				 "its parent has the GUID {%s}, %s has {%s}",
				 want.text, parent->path,
				 p->bundled ? p->guid.text : "none");
	return 0;
}

static int part_map(struct layer *l, const struct part *p, uint64_t off,
		    uint64_t len, struct extent *ret, struct error *err)
{
	int r = delta_map(l, &p->delta, off, len, ret, err);

	if (r < 0 || ret->kind != EXTENT_HOLE || !p->plain)
		return r;
	len = ret->len;
	if (off < p->plain->bytes)
		return extent_set_data(ret, p->plain, 0, off, len, err);
	*ret = (struct extent){ .kind = EXTENT_ZERO, .len = len };
	return 0;
}

/* The first part that does not end before @off; n_parts: there is none. */
static size_t find_part(const struct ploop_state *s, uint64_t off)
{
	size_t lo = 0, hi = s->n_parts, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (s->parts[mid].start + s->parts[mid].bytes <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int ploop_map(struct layer *l, uint64_t guest_off, uint64_t len,
		     struct extent *ret, struct error *err)
{
	const struct ploop_state *s = l->state;
	size_t i = find_part(s, guest_off);
	const struct part *p = &s->parts[i];

	if (i < s->n_parts && p->start <= guest_off)
		return part_map(l, p, guest_off - p->start,
				min_u64(len, p->start + p->bytes - guest_off),
				ret, err);
	/* No storage is said to have it. */
	*ret = (struct extent){ .kind = EXTENT_HOLE, .len = len };
	if (i < s->n_parts)
		ret->len = min_u64(len, p->start - guest_off);
	return 0;
}

static int ploop_snapshots(struct layer *l,
			   int (*each)(void *opaque, const struct snapshot *s),
			   void *opaque, struct error *err)
{
	const struct ploop_state *s = l->state;
	size_t i;
	int r = 0;

	for (i = 0; s->bundled && i < s->bundle.n_shots && !r; i++) {
		const struct bundle_shot *shot = &s->bundle.shots[i];
		const struct guid *guid = &shot->guid;
		char id[40];
		struct snapshot snap = {
			.id = id,
			.name = shot->name ? shot->name : id,
			.bytes = s->bundle.disk_sectors * PLOOP_SECTOR_BYTES,
		};

		if (guid_equal(guid, &s->bundle.top))
			continue;
		snprintf(id, sizeof(id), "{%s}", guid->text);
		r = each(opaque, &snap);
	}
	return r;
}

static bool ploop_is_snapshot(struct layer *l, const char *name)
{
	const struct ploop_state *s = l->state;
	struct guid guid;

	return s->bundled && guid_parse(&guid, name) &&
	       guid_equal(&guid, &s->guid);
}

static void ploop_info(struct layer *l, struct info_sink *sink)
{
	const struct ploop_state *s = l->state;
	const struct delta *d = &s->parts[0].delta;
	char id[40];
	bool in_use = false;
	size_t i;

	if (d->src) {
		sink->number(sink, "version", d->version);
		sink->number(sink, "cluster-sectors",
			     d->cluster_bytes / PLOOP_SECTOR_BYTES);
	}
	for (i = 0; i < s->n_parts; i++)
		in_use = in_use || s->parts[i].delta.in_use;
	sink->flag(sink, "dirty", in_use);
	delta_info(l, d, sink);
	if (!s->bundled)
		return;
	snprintf(id, sizeof(id), "{%s}", s->guid.text);
	sink->text(sink, "guid", id);
	snprintf(id, sizeof(id), "{%s}", s->bundle.top.text);
	sink->text(sink, "top-guid", id);
	sink->number(sink, "storages", s->n_parts);
	sink->number(sink, "shots", s->bundle.n_shots);
	if (s->names_damaged)
		sink->text(sink, "snapshot-names", "cannot be understood");
}

static int ploop_check(struct layer *l, struct check_report *r,
		       struct error *err)
{
	const struct ploop_state *s = l->state;
	size_t i;
	int code = 0;

	for (i = 0; i < s->n_parts && !code; i++)
		if (s->parts[i].delta.src)
			code = delta_check(l, &s->parts[i].delta, r, err);
	return code;
}

static bool ploop_probe(struct source *src, const uint8_t *head,
			size_t head_bytes)
{
	return bundle_probe(head, head_bytes);
}

const struct format_ops ploop_format = {
	.name = "ploop",
	.alias = "parallels",
	.glance_name = "ploop",
	.magic = { { 0, PLOOP_MAGIC_BYTES, PLOOP_V1_MAGIC },
		   { 0, PLOOP_MAGIC_BYTES, PLOOP_V2_MAGIC } },
	.probe = ploop_probe,
	.state_bytes = sizeof(struct ploop_state),
	.open = ploop_open,
	.check_parent = ploop_check_parent,
	.close = ploop_close,
	.map = ploop_map,
	.folder_file = BUNDLE_XML_NAME,
	.snapshots = ploop_snapshots,
	.is_snapshot = ploop_is_snapshot,
	.info = ploop_info,
	.check = ploop_check,
};
