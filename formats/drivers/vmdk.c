/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VMDK, after VMware's "Virtual Disk Format 5.0"; COWD and seSparse as files
 * of ESX have them.
 *
 * A disk is a descriptor (vmdk-descriptor.c) and extents, one behind the
 * other: flat files, sparse files, zeroes. A sparse file:
 *
 *	hosted ("KDMV")  header | descriptor | redundant directory and tables
 *			 | directory | tables | grains
 *	streamOptimized  header | descriptor | grains, each behind its sector
 *			 and size, and tables between | directory | footer (a
 *			 header that knows where the directory is) | end mark
 *	COWD             header (2048 bytes) | directory | tables | grains
 *	seSparse         header | volatile header | journal | directory |
 *			 tables | bitmaps | grains
 *
 *	guest offset:  | directory index | table index | offset in grain |
 *
 * The hosted sparse file of a disk of one file carries the descriptor itself;
 * that names the file as it was called when it was made, so in it the first
 * SPARSE extent is the file at hand. A sparse file without a descriptor is a
 * disk of its own.
 *
 * Extents of no access are zeroes: nothing tells what is behind them, and
 * their room in the disk must be kept. Custom disks, and those that were made of
 * devices, are served when their extents are files, as all others; a device has
 * a name that leads out of the image's folder. Raw device maps are refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "formats/cursor.h"
#include "formats/drivers/vmdk-inside.h"

static uint32_t magic_of(const uint8_t *head, size_t len)
{
	struct cursor c = { .buf = head, .len = len };

	return cursor_le32_at(&c, 0);
}

/* @head: the first bytes of e->src, as many as the longest header has. */
static int sparse_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
		       struct error *err)
{
	if (magic_of(head, len) == VMDK_HOSTED_MAGIC)
		return vmdk_hosted_open(e, head, len, err);
	if (magic_of(head, len) == VMDK_COWD_MAGIC)
		return vmdk_cowd_open(e, head, len, err);
	if (vmdk_is_sesparse(head, len))
		return vmdk_se_open(e, head, len, err);
	return error_set(err, -EBADMSG, 0,
			 "is not a sparse extent: magic 0x%08" PRIx32,
			 magic_of(head, len));
}

static int read_head(struct source *src, uint8_t *ret, size_t *ret_len,
		     struct error *err)
{
	*ret_len = (size_t)min_u64(src->bytes, VMDK_COWD_HEADER_BYTES);
	return source_read(src, ret, *ret_len, 0, err);
}

/* The sparse file at hand: with a descriptor, or with none. */
static bool is_sparse_file(const uint8_t *head, size_t len)
{
	return magic_of(head, len) == VMDK_HOSTED_MAGIC ||
	       magic_of(head, len) == VMDK_COWD_MAGIC ||
	       vmdk_is_sesparse(head, len);
}

/* With room for a byte more, to be freed. */
static int load_text(struct layer *l, uint64_t at, size_t len, char **ret,
		     struct error *err)
{
	CLEANUP(freep) char *text = malloc(len + 1);
	int r = text ? source_read(l->src, text, len, at, err)
		     : error_set(err, -ENOMEM, 0, "out of memory");

	if (r >= 0)
		*ret = TAKE_PTR(text);
	return r;
}

static int read_text(struct layer *l, uint64_t at, size_t len,
		     struct error *err)
{
	struct vmdk_state *s = l->state;
	char *text;
	int r = load_text(l, at, len, &text, err);

	return r < 0 ? r : vmdk_descriptor_parse(&s->d, text, len, at, err);
}

/*
 * The descriptor inside the sparse file @e, if its room is not left empty: so
 * QEMU makes the extents whose descriptor is a file of its own.
 */
static int read_embedded(struct layer *l, const struct vmdk_extent *e,
			 bool *ret_there, struct error *err)
{
	size_t len = (size_t)e->descriptor_bytes;
	struct vmdk_state *s = l->state;
	char *text;
	int r = vmdk_check_embedded(e, err);

	if (r >= 0)
		r = load_text(l, e->descriptor_off, len, &text, err);
	if (r < 0)
		return r;
	*ret_there = !is_all_zero(text, min_size(len, VMDK_SECTOR_BYTES));
	if (*ret_there)
		return vmdk_descriptor_parse(&s->d, text, len,
					     e->descriptor_off, err);
	free(text);
	return 0;
}

/* Whose disks have files that are disks by themselves. */
static int check_create_type(const struct vmdk_descriptor *d, struct error *err)
{
	static const char *const served[] = {
		"monolithicSparse",
		"monolithicFlat",
		"twoGbMaxExtentSparse",
		"twoGbMaxExtentFlat",
		"2GbMaxExtentSparse",
		"2GbMaxExtentFlat",
		"streamOptimized",
		"vmfs",
		"vmfsSparse",
		"vmfsThin",
		"vmfsPreallocated",
		"vmfsEagerZeroedThick",
		"seSparse",
		"custom",
		"fullDevice",
		"partitionedDevice",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(served); i++)
		if (!strcasecmp(served[i], d->create_type))
			return 0;
	return error_set(err, -ENOTSUP, d->create_type_at,
			 "createType \"%s\" is not supported: disks of files "
			 "are, raw device maps are not",
			 d->create_type);
}

static int open_named(struct layer *l, const struct vmdk_line *line,
		      struct source **ret, struct error *err)
{
	const struct vmdk_state *s = l->state;
	CLEANUP(freep) char *utf8 = vmdk_name_to_utf8(&s->d, line->name);

	if (utf8 && !layer_open_file(l, utf8, "extent", line->at, ret, NULL))
		return 0;
	return layer_open_file(l, line->name, "extent", line->at, ret, err);
}

/* Extents that lie in one file, one behind the other, share its source. */
static struct source *previous_source(const struct layer *l,
				      const struct vmdk_line *line,
				      const struct vmdk_line *lines,
				      const struct vmdk_extent *e)
{
	if (line > lines && line[-1].name && e[-1].src && e[-1].src != l->src &&
	    !strcmp(line[-1].name, line->name))
		return e[-1].src;
	return NULL;
}

static int open_sparse_line(struct layer *l, const struct vmdk_line *line,
			    struct vmdk_extent *e, struct error *err)
{
	uint8_t head[VMDK_COWD_HEADER_BYTES];
	size_t len;
	int r;

	r = read_head(e->src, head, &len, err);
	if (r >= 0)
		r = sparse_open(e, head, len, err);
	if (r >= 0 && !e->grain_bytes)
		r = error_set(err, -EBADMSG, VMDK_HOSTED_CAPACITY_AT,
			      "sparse extent has no capacity");
	if (r >= 0 &&
	    (line->type == VMDK_SESPARSE) != (e->kind == VMDK_KIND_SESPARSE))
		r = error_set(err, -EBADMSG, line->at,
			      "is declared %s, but is not of that kind",
			      vmdk_type_name(line->type));
	if (r < 0)
		error_prefix(err, "extent \"%s\"", line->name);
	return r;
}

/*
 * The size is in the line and in the header, where some writers round it up to
 * whole grains. Sets e->bytes to what the line says; @alone: the header has
 * the last word.
 */
static int fit_sparse(struct vmdk_extent *e, const struct vmdk_line *line,
		      bool alone, struct error *err)
{
	uint64_t bytes = vmdk_sectors(line->sectors);

	if (e->capacity != bytes &&
	    e->capacity != round_up(bytes, e->grain_bytes))
		return error_set(err, -EBADMSG, line->at,
				 "extent \"%s\" has %" PRIu64
				 " bytes, the descriptor wants %" PRIu64,
				 line->name, e->capacity, bytes);
	if (!alone)
		e->bytes = bytes;
	return 0;
}

static int open_line(struct layer *l, const struct vmdk_line *line,
		     struct vmdk_extent *e, struct error *err)
{
	const struct vmdk_state *s = l->state;
	int r = 0;

	e->bytes = vmdk_sectors(line->sectors);
	if (line->type == VMDK_ZERO || line->access == VMDK_NOACCESS) {
		e->kind = VMDK_KIND_ZERO;
		e->noaccess = line->access == VMDK_NOACCESS;
		return 0;
	}
	e->src = previous_source(l, line, s->d.lines, e);
	if (!e->src)
		r = open_named(l, line, &e->src, err);
	if (r < 0)
		return r;
	if (line->type != VMDK_FLAT && line->type != VMDK_VMFS) {
		r = open_sparse_line(l, line, e, err);
		return r < 0 ? r : fit_sparse(e, line, s->d.n_lines == 1, err);
	}
	if (!vmdk_off_fits(line->offset))
		return error_set(err, -EBADMSG, line->at,
				 "extent's offset of %" PRIu64
				 " sectors is over the limit of 2^64 bytes",
				 line->offset);
	e->kind = VMDK_KIND_FLAT;
	e->host_off = vmdk_sectors(line->offset);
	/* A file may have been cut, which is damage behind its end; a wrong
	 * place would move all that is read. */
	if (line->offset && !range_inside(e->host_off, e->bytes, e->src->bytes))
		return error_set(
			err, -EBADMSG, line->at,
			"extent \"%s\" of %" PRIu64 " bytes at %" PRIu64
			" ends past its file's %" PRIu64 " bytes",
			line->name, e->bytes, e->host_off, e->src->bytes);
	return 0;
}

/* The first SPARSE line of an embedded descriptor: the file at hand. */
static bool is_self(const struct vmdk_line *line,
		    const struct vmdk_extent *self, bool taken)
{
	return self && !taken && line->access != VMDK_NOACCESS &&
	       (line->type == VMDK_SPARSE || line->type == VMDK_VMFSSPARSE);
}

static int add_bytes(struct layer *l, const struct vmdk_line *line,
		     struct vmdk_extent *e, struct error *err)
{
	e->guest_off = l->bytes;
	if (e->bytes > INT64_MAX - l->bytes)
		return error_set(err, -EFBIG, line->at,
				 "the extents' sum is over the limit of 2^63 "
				 "bytes");
	l->bytes += e->bytes;
	return 0;
}

/* @self: the open file of an embedded descriptor, or NULL. */
static int open_lines(struct layer *l, const struct vmdk_extent *self,
		      struct error *err)
{
	struct vmdk_state *s = l->state;
	bool taken = false;
	size_t i;
	int r;

	s->extents = calloc(s->d.n_lines + 1, sizeof(*s->extents));
	if (!s->extents)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < s->d.n_lines; i++) {
		const struct vmdk_line *line = &s->d.lines[i];
		struct vmdk_extent *e = &s->extents[i];

		r = vmdk_check_capacity(line->sectors, line->at, err);
		if (r < 0)
			return r;
		if (is_self(line, self, taken)) {
			*e = *self;
			taken = true;
			r = fit_sparse(e, line, s->d.n_lines == 1, err);
		} else {
			r = open_line(l, line, e, err);
		}
		if (r >= 0)
			r = add_bytes(l, line, e, err);
		if (r < 0)
			return r;
		s->n_extents++;
	}
	return 0;
}

/* One extent, the file itself. */
static int open_bare(struct layer *l, const struct vmdk_extent *self,
		     struct error *err)
{
	struct vmdk_state *s = l->state;

	s->extents = malloc(sizeof(*s->extents));
	if (!s->extents)
		return error_set(err, -ENOMEM, 0, "out of memory");
	s->extents[0] = *self;
	s->n_extents = 1;
	l->bytes = self->bytes;
	return 0;
}

/* parentCID says whether there is a parent, the hint where. */
static int take_parent(struct layer *l, struct error *err)
{
	const struct vmdk_state *s = l->state;
	const struct vmdk_descriptor *d = &s->d;
	CLEANUP(freep) char *utf8 = NULL;

	if (d->parent_cid == VMDK_NO_PARENT)
		return 0;
	if (!d->parent_hint || !*d->parent_hint)
		return error_set(err, -EBADMSG, d->parent_hint_at,
				 "is a delta of the disk with CID %08" PRIx32
				 ", but does not name it",
				 d->parent_cid);
	utf8 = vmdk_name_to_utf8(d, d->parent_hint);
	return layer_set_parent_by_id(l, utf8 ? utf8 : d->parent_hint, "vmdk",
				      d->parent_hint_at, err);
}

/* The largest power of two that all borders of grains are multiples of. */
static uint64_t common_unit(const struct vmdk_state *s)
{
	uint64_t borders = 0;
	size_t i;

	for (i = 0; i < s->n_extents; i++)
		if (s->extents[i].grain_bytes)
			borders |= s->extents[i].grain_bytes |
				   s->extents[i].guest_off;
	return borders & -borders;
}

static int open_descriptor(struct layer *l, const struct vmdk_extent *self,
			   struct error *err)
{
	struct vmdk_state *s = l->state;
	int r;

	r = vmdk_descriptor_check(&s->d, err);
	if (r >= 0)
		r = check_create_type(&s->d, err);
	if (r < 0)
		return r;
	if (!s->d.n_lines)
		r = error_set(err, -EBADMSG, 0, "descriptor has no extents");
	else
		r = open_lines(l, self, err);
	return r < 0 ? r : take_parent(l, err);
}

static int open_file(struct layer *l, struct error *err)
{
	struct vmdk_state *s = l->state;
	struct vmdk_extent self = { .src = l->src };
	uint8_t head[VMDK_COWD_HEADER_BYTES];
	bool described = false;
	size_t len;
	int r;

	r = read_head(l->src, head, &len, err);
	if (r < 0)
		return r;
	if (!is_sparse_file(head, len)) {
		if (l->src->bytes > VMDK_DESCRIPTOR_MAX)
			return error_set(err, -EFBIG, 0,
					 "descriptor of %" PRIu64
					 " bytes is over the limit of %u",
					 l->src->bytes, VMDK_DESCRIPTOR_MAX);
		r = read_text(l, 0, (size_t)l->src->bytes, err);
		return r < 0 ? r : open_descriptor(l, NULL, err);
	}
	r = sparse_open(&self, head, len, err);
	if (r < 0)
		return r;
	if (self.descriptor_off)
		r = read_embedded(l, &self, &described, err);
	if (r < 0)
		return r;
	if (described)
		return open_descriptor(l, self.grain_bytes ? &self : NULL, err);
	s->bare = true;
	if (l->top)
		l->remark = "is an extent without a descriptor, and perhaps a "
			    "part of a disk alone: the descriptor (a .vmdk "
			    "without -s001) is the whole";
	r = open_bare(l, &self, err);
	if (r >= 0 && self.kind == VMDK_KIND_COWD)
		r = vmdk_cowd_take_parent(l, head, len, err);
	return r;
}

static int vmdk_open(struct layer *l, struct error *err)
{
	int r = open_file(l, err);

	if (r >= 0)
		l->unit_bytes = common_unit(l->state);
	return r;
}

static void vmdk_close(struct layer *l)
{
	struct vmdk_state *s = l->state;

	vmdk_descriptor_done(&s->d);
	free(s->extents);
}

static bool vmdk_probe(struct source *src, const uint8_t *head,
		       size_t head_bytes)
{
	return vmdk_is_descriptor(head, head_bytes);
}

static int vmdk_check_parent(struct layer *l, struct layer *parent,
			     struct error *err)
{
	const struct vmdk_state *s = l->state, *p = parent->state;

	if (s->bare)
		return parent->ops == l->ops ? vmdk_cowd_check_parent(s, p, err)
					     : 0;
	if (!p->d.has_cid)
		return error_set(err, -EBADMSG, s->d.parent_hint_at,
				 "parent has no CID, %08" PRIx32 " is wanted",
				 s->d.parent_cid);
	if (p->d.cid != s->d.parent_cid)
		return error_set(err, -EBADMSG, s->d.parent_hint_at,
				 "parent's CID is %08" PRIx32 ", not %08" PRIx32
				 ": it was changed since",
				 p->d.cid, s->d.parent_cid);
	return 0;
}

/* A flat file may be cut off: what lies behind its end cannot be read. */
static int map_flat(const struct vmdk_extent *e, uint64_t in, uint64_t len,
		    struct extent *ret, struct error *err)
{
	struct error found = { 0 };
	int r = extent_set_data(ret, e->src, e->host_off, in, len, &found);

	if (r >= 0)
		return r;
	ret->kind = EXTENT_DAMAGED;
	ret->len = len;
	/* One sector: who asks wants to hear why. */
	return len > VMDK_SECTOR_BYTES
		       ? 0
		       : error_set(err, found.code, found.off,
				   "flat extent: %s", found.msg);
}

/* The extent that has @guest_off, which lies inside the disk. */
static const struct vmdk_extent *find_extent(const struct vmdk_state *s,
					     uint64_t guest_off)
{
	size_t low = 0, high = s->n_extents;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (s->extents[mid].guest_off <= guest_off)
			low = mid;
		else
			high = mid;
	}
	return &s->extents[low];
}

static int vmdk_map(struct layer *l, uint64_t guest_off, uint64_t len,
		    struct extent *ret, struct error *err)
{
	const struct vmdk_extent *e = find_extent(l->state, guest_off);
	uint64_t in = guest_off - e->guest_off;

	len = min_u64(len, e->bytes - in);
	switch (e->kind) {
	case VMDK_KIND_ZERO:
		ret->kind = EXTENT_ZERO;
		ret->len = len;
		return 0;
	case VMDK_KIND_FLAT:
		return map_flat(e, in, len, ret, err);
	default:
		return vmdk_map_sparse(l, e, in, len, ret, err);
	}
}

static void info_sparse(const struct vmdk_state *s, struct info_sink *sink)
{
	const struct vmdk_extent *e = &s->extents[0];

	if (!s->n_extents || !e->grain_bytes)
		return;
	sink->number(sink, "sparse-version", e->version);
	sink->flag(sink, "compressed", e->compressed);
	sink->flag(sink, "dirty", e->dirty);
}

/* Keys as `qemu-img info --output=json` has them under format-specific. */
static void vmdk_info(struct layer *l, struct info_sink *sink)
{
	const struct vmdk_state *s = l->state;
	size_t i;

	if (s->d.create_type)
		sink->text(sink, "create-type", s->d.create_type);
	if (!s->bare) {
		sink->number(sink, "cid", s->d.cid);
		sink->number(sink, "parent-cid", s->d.parent_cid);
	}
	sink->number(sink, "extents", s->n_extents);
	if (s->d.encoding)
		sink->text(sink, "encoding", s->d.encoding);
	info_sparse(s, sink);
	for (i = 0; i < s->d.n_ddb; i++) {
		char key[128];

		text_escape(key, sizeof(key), s->d.ddb[i].key);
		sink->text(sink, key, s->d.ddb[i].value);
	}
}

const struct format_ops vmdk_format = {
	.name = "vmdk",
	.glance_name = "vmdk",
	.magic = { { 0, 4, "KDMV" },
		   { 0, 4, "COWD" },
		   { 0, 8, "\xbe\xba\xfe\xca\0\0\0\0" } },
	.probe = vmdk_probe,
	.open_ended = vmdk_hosted_open_ended,
	.state_bytes = sizeof(struct vmdk_state),
	.open = vmdk_open,
	.check_parent = vmdk_check_parent,
	.close = vmdk_close,
	.map = vmdk_map,
	.info = vmdk_info,
	.check = vmdk_check,
};
