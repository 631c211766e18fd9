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
#include "formats/drivers/unit-check.h"

#define PLOOP_V1_MAGIC	   "WithoutFreeSpace"
#define PLOOP_V2_MAGIC	   "WithouFreSpacExt"
#define PLOOP_MAGIC_BYTES  16U
#define PLOOP_TYPE	   2U
#define PLOOP_IN_USE	   0x746f6e59U
#define PLOOP_SECTOR_BYTES 512U
#define PLOOP_TRACKS_MAX   ((uint32_t)INT32_MAX / 513)
#define PLOOP_ENTRIES_MAX  ((uint32_t)INT32_MAX / 4)

#define PLOOP_EXT_MAGIC	    0xab234cef23dcea87ULL
#define PLOOP_EXT_BITMAP    0x20385fae252cb34aULL
#define PLOOP_EXT_NECESSARY 1U
#define PLOOP_FEATURES_MAX  64U

enum {
	PLOOP_TYPE_AT = 16,
	PLOOP_TRACKS_AT = 28,
	PLOOP_ENTRIES_AT = 32,
	PLOOP_SECTORS_AT = 36,
	PLOOP_IN_USE_AT = 44,
	PLOOP_DATA_OFF_AT = 48,
	PLOOP_EXT_OFF_AT = 56,
	PLOOP_HEADER_BYTES = 64, /* here the BAT begins */

	/* Format Extension, and a feature in it */
	EXT_MAGIC_AT = 0,
	EXT_FEATURES_AT = 24,
	FEATURE_MAGIC_AT = 0,
	FEATURE_FLAGS_AT = 8,
	FEATURE_DATA_BYTES_AT = 16,
	FEATURE_BYTES = 24,
};

struct ploop_header {
	uint8_t magic[PLOOP_MAGIC_BYTES];
	uint32_t type;
	uint32_t tracks; /* sectors of a cluster */
	uint32_t entries;
	uint64_t sectors; /* of the disk */
	uint32_t in_use;
	uint32_t data_off; /* sectors */
	uint64_t ext_off; /* sectors; 0: there is none */
};

/* One expandable image file. */
struct delta {
	struct source *src; /* the layer's; NULL: there is none here */
	unsigned int version;
	uint64_t cluster_bytes;
	uint64_t entry_unit; /* bytes that a BAT entry counts */
	uint64_t entries;
	uint64_t bytes; /* of the disk, as its header has it */
	uint64_t data_off; /* bytes; version 1: a claim */
	uint64_t ext_off; /* bytes; 0: none that can be believed */
	bool in_use;
};

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

static int decode_header(const uint8_t *buf, size_t len,
			 struct ploop_header *ret, struct error *err)
{
	struct cursor c = { .buf = buf, .len = len };
	struct ploop_header h = {
		.type = cursor_le32_at(&c, PLOOP_TYPE_AT),
		.tracks = cursor_le32_at(&c, PLOOP_TRACKS_AT),
		.entries = cursor_le32_at(&c, PLOOP_ENTRIES_AT),
		.sectors = cursor_le64_at(&c, PLOOP_SECTORS_AT),
		.in_use = cursor_le32_at(&c, PLOOP_IN_USE_AT),
		.data_off = cursor_le32_at(&c, PLOOP_DATA_OFF_AT),
		.ext_off = cursor_le64_at(&c, PLOOP_EXT_OFF_AT),
	};

	cursor_copy_at(&c, 0, h.magic, sizeof(h.magic));
	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "ploop header is cut off after %zu bytes",
				 len);
	*ret = h;
	return 0;
}

/* 1 or 2; 0: neither. */
static unsigned int magic_version(const uint8_t *magic)
{
	if (!memcmp(magic, PLOOP_V1_MAGIC, PLOOP_MAGIC_BYTES))
		return 1;
	return memcmp(magic, PLOOP_V2_MAGIC, PLOOP_MAGIC_BYTES) ? 0 : 2;
}

static uint64_t disk_sectors(const struct ploop_header *h)
{
	return magic_version(h->magic) == 2 ? h->sectors : (uint32_t)h->sectors;
}

static uint64_t cluster_count(const struct ploop_header *h)
{
	return div_round_up(disk_sectors(h), h->tracks);
}

/* Every relation that ploop_map() relies on. */
static int check_header(const struct ploop_header *h, uint64_t file_bytes,
			struct error *err)
{
	if (!magic_version(h->magic))
		return error_set(err, -EBADMSG, 0,
				 "is no ploop image: wrong signature");
	if (h->type != PLOOP_TYPE)
		return error_set(err, -ENOTSUP, PLOOP_TYPE_AT,
				 "ploop image type %" PRIu32
				 " is not supported, %u is",
				 h->type, PLOOP_TYPE);
	if (!h->tracks || h->tracks > PLOOP_TRACKS_MAX)
		return error_set(err, -EBADMSG, PLOOP_TRACKS_AT,
				 "cluster size of %" PRIu32
				 " sectors is not in 1..%" PRIu32,
				 h->tracks, PLOOP_TRACKS_MAX);
	if (h->entries > PLOOP_ENTRIES_MAX)
		return error_set(err, -EFBIG, PLOOP_ENTRIES_AT,
				 "BAT of %" PRIu32
				 " entries is over the limit of %" PRIu32,
				 h->entries, PLOOP_ENTRIES_MAX);
	if (!range_inside(PLOOP_HEADER_BYTES, (uint64_t)h->entries * 4,
			  file_bytes))
		return error_set(err, -EBADMSG, PLOOP_ENTRIES_AT,
				 "BAT of %" PRIu32
				 " entries ends past the file's %" PRIu64
				 " bytes",
				 h->entries, file_bytes);
	if (magic_version(h->magic) == 2 && h->sectors > BUNDLE_SECTORS_MAX)
		return error_set(err, -EFBIG, PLOOP_SECTORS_AT,
				 "virtual size of %" PRIu64
				 " sectors is over the limit of %" PRIu64,
				 h->sectors, (uint64_t)BUNDLE_SECTORS_MAX);
	if (cluster_count(h) > h->entries)
		return error_set(err, -EBADMSG, PLOOP_ENTRIES_AT,
				 "BAT of %" PRIu32
				 " entries is too short for a disk of %" PRIu64
				 " sectors in clusters of %" PRIu32,
				 h->entries, disk_sectors(h), h->tracks);
	/* "data_off": not 0, and whole clusters. */
	if (magic_version(h->magic) == 2 &&
	    (!h->data_off || h->data_off % h->tracks))
		return error_set(err, -EBADMSG, PLOOP_DATA_OFF_AT,
				 "data at sector %" PRIu32
				 " do not begin at a cluster of %" PRIu32
				 " sectors",
				 h->data_off, h->tracks);
	if (h->in_use != PLOOP_IN_USE &&
	    h->ext_off > file_bytes / PLOOP_SECTOR_BYTES)
		return error_set(err, -EBADMSG, PLOOP_EXT_OFF_AT,
				 "format extension at sector %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 h->ext_off, file_bytes);
	return 0;
}

static int delta_open(struct source *src, struct delta *ret, struct error *err)
{
	uint8_t buf[PLOOP_HEADER_BYTES];
	size_t len = (size_t)min_u64(sizeof(buf), src->bytes);
	struct ploop_header h;
	int r;

	r = source_read(src, buf, len, 0, err);
	if (r >= 0)
		r = decode_header(buf, len, &h, err);
	if (r >= 0)
		r = check_header(&h, src->bytes, err);
	if (r < 0)
		return r;
	*ret = (struct delta){
		.src = src,
		.version = magic_version(h.magic),
		.cluster_bytes = (uint64_t)h.tracks * PLOOP_SECTOR_BYTES,
		.entry_unit = PLOOP_SECTOR_BYTES,
		.entries = h.entries,
		.bytes = disk_sectors(&h) * PLOOP_SECTOR_BYTES,
		.data_off = h.data_off * (uint64_t)PLOOP_SECTOR_BYTES,
		.in_use = h.in_use == PLOOP_IN_USE,
	};
	if (ret->version == 2)
		ret->entry_unit = ret->cluster_bytes;
	/* What a writer that died has left there is stale. */
	if (!ret->in_use)
		ret->ext_off = h.ext_off * PLOOP_SECTOR_BYTES;
	return 0;
}

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
		CLEANUP(source_unrefp) struct source *xml = NULL;
		CLEANUP(freep) char *path = NULL;

		if (reference_open(l->folder, places[i], BUNDLE_NAMES_NAME,
				   &l->options->allow, false, &xml, NULL, &path,
				   NULL, NULL) < 0)
			continue;
		s->names_damaged =
			read_xml(xml, BUNDLE_NAMES_NAME, bundle_parse_names,
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
	CLEANUP(source_unrefp) struct source *xml = NULL;
	CLEANUP(freep) char *path = NULL;
	enum reference_verdict verdict;
	struct ploop_state *s = l->state;
	int r;

	if (l->options->alone)
		return 0;
	r = reference_open(l->folder, BUNDLE_XML_NAME, BUNDLE_XML_NAME,
			   &l->options->allow, false, &xml, NULL, &path,
			   &verdict, NULL);
	if (r < 0 && verdict == REFERENCE_MISSING)
		return 0;
	if (r < 0)
		return error_set(err, r, 0,
				 "the " BUNDLE_XML_NAME
				 " beside it cannot be read: %s",
				 reference_verdict_text(verdict));
	r = read_bundle(xml, &s->bundle, err);
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
	       magic_version(magic);
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

/* Old files of version 1 tell no place of their data, or a wrong one. */
static uint64_t clusters_from(const struct delta *d)
{
	uint64_t bat_end = PLOOP_HEADER_BYTES + d->entries * 4;

	return d->version == 2 ? max_u64(bat_end, d->data_off) : bat_end;
}

static int decode_entry(const void *state, const uint8_t *raw,
			struct unit_place *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = 4 };
	const struct delta *d = state;
	uint32_t entry = cursor_le32_at(&c, 0);

	/* Below 2^32 * 2^31. */
	ret->host_off = entry * d->entry_unit;
	ret->kind = entry ? EXTENT_DATA : EXTENT_HOLE;
	if (entry && ret->host_off < clusters_from(d))
		return error_set(err, -EBADMSG, 0,
				 "BAT entry %" PRIu32
				 " leads in front of the data at %" PRIu64,
				 entry, clusters_from(d));
	return 0;
}

static struct unit_table bat(const struct delta *d)
{
	return (struct unit_table){
		.src = d->src,
		.off = PLOOP_HEADER_BYTES,
		.entry_bytes = 4,
		.unit_bytes = d->cluster_bytes,
		.stride = d->cluster_bytes,
		.data = d->src,
		.decode = decode_entry,
		.state = d,
	};
}

/*
 * A lower delta may be of a time when the disk was smaller: there is nothing
 * behind its BAT. The top's covers the disk: check_storages().
 */
static int delta_map(struct layer *l, const struct delta *d, uint64_t off,
		     uint64_t len, struct extent *ret, struct error *err)
{
	uint64_t mapped = d->entries * d->cluster_bytes;
	struct unit_table t = bat(d);

	*ret = (struct extent){ .kind = EXTENT_HOLE, .len = len };
	if (!d->src || off >= mapped)
		return 0;
	return unit_table_map(l, &t, off, min_u64(len, mapped - off), ret, err);
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

struct features {
	uint64_t bitmaps;
	uint64_t unknown;
	bool necessary; /* an unknown one: the image may not be written */
	bool damaged;
};

/* "Format Extension": 24 bytes, then features until one that is all zero. */
static void read_features(struct layer *l, const struct delta *d,
			  struct features *ret)
{
	uint64_t at = d->ext_off + EXT_FEATURES_AT;
	uint64_t end = min_u64(d->ext_off + d->cluster_bytes, d->src->bytes);
	uint8_t buf[FEATURE_BYTES] = { 0 };
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	unsigned int n;

	*ret = (struct features){ 0 };
	if (layer_read_meta(l, d->src, buf, 8, d->ext_off, NULL) < 0 ||
	    cursor_le64_at(&c, EXT_MAGIC_AT) != PLOOP_EXT_MAGIC)
		ret->damaged = true;
	for (n = 0; !ret->damaged && n < PLOOP_FEATURES_MAX; n++) {
		uint64_t magic, bytes;

		ret->damaged = at > end || end - at < FEATURE_BYTES ||
			       layer_read_meta(l, d->src, buf, sizeof(buf), at,
					       NULL) < 0;
		magic = cursor_le64_at(&c, FEATURE_MAGIC_AT);
		if (ret->damaged || !magic)
			return;
		bytes = cursor_le32_at(&c, FEATURE_DATA_BYTES_AT);
		if (magic == PLOOP_EXT_BITMAP) {
			ret->bitmaps++;
		} else {
			ret->unknown++;
			if (cursor_le64_at(&c, FEATURE_FLAGS_AT) &
			    PLOOP_EXT_NECESSARY)
				ret->necessary = true;
		}
		at += FEATURE_BYTES + round_up(bytes, 8);
	}
}

static void info_extension(struct layer *l, const struct delta *d,
			   struct info_sink *sink)
{
	struct features f;

	if (!d->src || !d->ext_off)
		return;
	read_features(l, d, &f);
	sink->number(sink, "bitmaps", f.bitmaps);
	sink->number(sink, "unknown-extensions", f.unknown);
	sink->flag(sink, "unknown-extensions-necessary", f.necessary);
	sink->flag(sink, "extension-damaged", f.damaged);
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
	info_extension(l, d, sink);
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

/* One image file of the layer. */
static int check_delta(struct layer *l, const struct delta *d,
		       struct check_report *r, struct error *err)
{
	struct unit_table t = bat(d);
	uint64_t bat_bytes = PLOOP_HEADER_BYTES + d->entries * 4;
	struct features f = { 0 };
	CLEANUP(unit_check_done)
	struct unit_check k = {
		.l = l,
		.r = r,
		.unit = "cluster",
		.unit_bytes = d->cluster_bytes,
		.src = d->src,
		.err = err,
	};
	int code;

	code = unit_check_claim(&k, 0, bat_bytes);
	if (code >= 0)
		code = unit_check_table(&k, &t, d->entries);
	if (code < 0)
		return code;
	if (d->ext_off)
		read_features(l, d, &f);
	if (f.damaged)
		unit_check_corrupt(&k,
				   "format extension at %" PRIu64 " is damaged",
				   d->ext_off);
	if (d->in_use)
		unit_check_corrupt(&k, "image is marked as in use: it was not "
				       "closed");
	if (d->entries > div_round_up(d->bytes, d->cluster_bytes))
		unit_check_corrupt(&k,
				   "BAT has %" PRIu64
				   " entries, a disk of %" PRIu64
				   " bytes needs fewer",
				   d->entries, d->bytes);
	/* Clusters of an extension are not counted: no leaks where one is. */
	unit_check_finish(&k, d->ext_off ? d->src->bytes
					 : max_u64(d->data_off, bat_bytes));
	return 0;
}

static int ploop_check(struct layer *l, struct check_report *r,
		       struct error *err)
{
	const struct ploop_state *s = l->state;
	size_t i;
	int code = 0;

	for (i = 0; i < s->n_parts && !code; i++)
		if (s->parts[i].delta.src)
			code = check_delta(l, &s->parts[i].delta, r, err);
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
