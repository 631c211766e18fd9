/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What platter convert does. A file has its name when it is whole and safe, and
 * not before.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/overlay/qcow2-sink.h"
#include "iouring/write.h"
#include "nbd/cmd/convert.h"
#include "nbd/cmd/measure.h"
#include "nbd/cmd/operand.h"
#include "nbd/cmd/output.h"
#include "nbd/cmd/stop.h"
#include "nbd/cmd/stream.h"
#include "nbd/cmd/target.h"
#include "nbd/overlays.h"

#define QEMU_SECTOR_BYTES 512U

static int tell(void *opaque, uint64_t done_bytes)
{
	struct convert *c = opaque;

	if (stop_signal())
		return -EINTR;
	progress_tell(&c->progress, done_bytes);
	return 0;
}

/* What is read. */
struct input {
	struct output spool; /* what standard input brought; or nothing */
	struct image *img;
	struct image *from; /* what has changed since is copied; NULL: all */
	struct image *base; /* the file below the copy, if that was named */
	char *base_name; /* how the copy names it; NULL: nothing is below */
	char base_format[LAYER_FORMAT_BYTES];
};

static void input_done(struct input *in)
{
	image_unref(in->img);
	image_unref(in->from);
	image_unref(in->base);
	free(in->base_name);
	output_done(&in->spool);
}

static int copy(struct convert *c, struct input *in, struct copy_sink *sink,
		struct error *err)
{
	struct difference changes = { .from = in->from,
				      .to = in->img,
				      .compare = true };
	int r;

	progress_begin(&c->progress, "convert", in->img->bytes, c->quiet);
	r = in->from ? copy_difference(&changes, sink, c->threads, tell, c, err)
		     : copy_image(in->img, sink, c->threads, tell, c, err);
	progress_end(&c->progress);
	return r;
}

static int to_raw(struct convert *c, struct input *in, struct source *dst,
		  struct error *err)
{
	struct raw_sink s;
	int r;

	raw_sink_init(&s, dst);
	s.sink.name = c->output;
	r = copy(c, in, &s.sink, err);
	return r < 0 ? r : source_truncate(dst, in->img->bytes, err);
}

static uint32_t cluster_bits(const struct convert *c)
{
	return c->cluster_bits ? c->cluster_bits : QCOW2_CREATE_CLUSTER_BITS;
}

/* *ret_bytes: how long the file is. */
static int to_qcow2(struct convert *c, struct input *in, struct qcow2_dst *dst,
		    uint64_t *ret_bytes, struct error *err)
{
	CLEANUP(qcow2_sink_done) struct qcow2_sink s = { 0 };
	int r;

	r = qcow2_sink_init(&s, dst, in->img->bytes, cluster_bits(c),
			    c->compress, c->codec, c->level, err);
	s.sink.name = c->output;
	if (r >= 0 && in->base_name)
		r = qcow2_sink_set_base(&s, in->base_name, in->base_format,
					err);
	if (r >= 0)
		r = copy(c, in, &s.sink, err);
	if (r < 0)
		return r;
	r = qcow2_create_finish(s.file, ret_bytes, err);
	if (r < 0)
		error_prefix(err, "%s", c->output);
	return r;
}

/* @room: UINT64_MAX: nobody knows. */
static void print_json(const struct convert *c, uint64_t disk_bytes,
		       uint64_t bytes, uint64_t room)
{
	json_t *j = json_object();

	json_object_set_new(j, "format",
			    json_string(c->qcow2 ? "qcow2" : "raw"));
	json_object_set_new(j, "virtual-size",
			    json_integer((json_int_t)disk_bytes));
	json_object_set_new(j, "file-size", json_integer((json_int_t)bytes));
	if (room != UINT64_MAX)
		json_object_set_new(j, "actual-size",
				    json_integer((json_int_t)room));
	cmd_json_print(j, JSON_COMPACT);
}

/* All is written: it gets its name, unless it shall stop. */
static int commit(const struct convert *c, struct output *out,
		  uint64_t disk_bytes, struct error *err)
{
	uint64_t bytes, room;
	int r = stop_signal() ? -EINTR : output_commit(out, err);

	if (r < 0 || !c->cmd.json)
		return r;
	r = source_measure(out->dst, &bytes, &room, err);
	if (r >= 0)
		print_json(c, disk_bytes, bytes, room);
	return r;
}

static int to_file(struct convert *c, struct input *in, struct error *err)
{
	CLEANUP(output_done) struct output out = { 0 };
	struct qcow2_file_dst file;
	uint64_t bytes;
	int r = output_begin(&out, c->output, c->overwrite, err);

	qcow2_file_dst_init(&file, out.dst);
	if (r >= 0)
		r = c->qcow2 ? to_qcow2(c, in, &file.dst, &bytes, err)
			     : to_raw(c, in, out.dst, err);
	return r < 0 ? r : commit(c, &out, in->img->bytes, err);
}

static int to_stdout(struct convert *c, struct input *in, struct error *err)
{
	CLEANUP(stream_sink_done) struct stream_sink s = { .fd = -1 };
	int r = stream_sink_init(&s, err);

	if (r >= 0)
		r = copy(c, in, &s.sink, err);
	return r < 0 ? r : stream_sink_finish(&s, in->img->bytes, err);
}

/* ---- onto what is there ---- */

/* What is read is not written. */
static int check_another(const struct target *t, const struct image *img,
			 struct error *err)
{
	struct source_identity a, b;
	unsigned int i;

	for (i = 0; i < img->chain.depth; i++) {
		const struct layer *l = img->chain.layers[i];
		bool same = !strcmp(l->path, t->name);

		if (t->device) {
			source_identity(l->src, &a);
			source_identity(t->device, &b);
			same = identity_is_same(&a, &b);
		}
		if (same)
			return error_set(err, -EINVAL, 0, "%s: is what is read",
					 t->name);
	}
	return 0;
}

/* *ret_bytes: how much of it there is. */
static int fill_target(struct convert *c, struct input *in, struct target *t,
		       uint64_t *ret_bytes, struct error *err)
{
	int r;

	*ret_bytes = t->bytes;
	if (c->qcow2) {
		/* A copy that ends half-way shall not look like what was. */
		r = target_wipe(t, 1ULL << cluster_bits(c), err);
		if (r >= 0)
			r = to_qcow2(c, in, &t->file, ret_bytes, err);
	} else {
		r = target_zero(t, in->img, stop_signal, err);
		if (r >= 0)
			r = copy(c, in, &t->sink, err);
	}
	if (r >= 0 && stop_signal())
		r = -EINTR;
	return r < 0 ? r : target_flush(t, err);
}

/* A file that nobody keeps. */
static int dry_write(struct qcow2_dst *d, const void *buf, size_t len,
		     uint64_t off, struct error *err)
{
	return 0;
}

static int dry_end(struct qcow2_dst *d, uint64_t bytes, struct error *err)
{
	return 0;
}

/*
 * Of clusters with data tables do not tell which are zeroes, and not written. Where
 * @t has no room for the @need bytes of all of them, they are read, and nothing is
 * written.
 */
static int check_fits(struct convert *c, struct input *in,
		      const struct target *t, uint64_t need, struct error *err)
{
	struct qcow2_dst dry = { .write = dry_write,
				 .end = dry_end,
				 .bytes_max = t->bytes,
				 .align = t->file.align };
	char line[ERROR_MSG_BYTES];
	uint64_t bytes;
	int r;

	if (t->bytes >= need)
		return 0;
	snprintf(line, sizeof(line),
		 "%.200s: has %" PRIu64 " bytes, the file needs up to %" PRIu64
		 ": what is zeroes is looked for first",
		 c->output, t->bytes, need);
	cmd_say(line);
	r = to_qcow2(c, in, &dry, &bytes, err);
	if (r != -ENOSPC)
		return r;
	error_clear(err);
	return error_set(err, r, 0,
			 "%s: has %" PRIu64
			 " bytes, the file needs more, up to %" PRIu64,
			 c->output, t->bytes, need);
}

/*
 * What must fit, before anything is written. How small compressed clusters get is
 * not known: of such a file the tables must. *ret_need: bytes, if no data are zeroes.
 */
static int open_target(const struct convert *c, const struct input *in,
		       struct target *t, uint64_t *ret_need, struct error *err)
{
	uint64_t bytes = in->img->bytes, full, data;
	int r;

	*ret_need = bytes;
	if (!c->qcow2)
		return target_open(t, c->output, bytes, "the disk", err);
	r = measure_qcow2(bytes, cluster_bits(c), in->img, &full, &data, err);
	if (r < 0)
		return r;
	full -= round_up(bytes, 1ULL << cluster_bits(c));
	r = target_open(t, c->output, full, "the file's tables need", err);
	if (r < 0)
		return r;
	if (t->file.align > 1U << cluster_bits(c))
		return error_set(err, -EINVAL, 0,
				 "%s: is written in blocks of %" PRIu32
				 " bytes: take clusters as large",
				 c->output, t->file.align);
	*ret_need = c->compress ? full : full + data;
	return 0;
}

static void tell_rest(const struct convert *c, const struct target *t,
		      uint64_t bytes)
{
	char line[ERROR_MSG_BYTES];

	if (c->qcow2 || t->bytes - bytes < t->align)
		return;
	snprintf(line, sizeof(line),
		 "%.200s: has %" PRIu64 " bytes, of which what lies behind the "
		 "disk's %" PRIu64 " stays as it is",
		 c->output, t->bytes, bytes);
	cmd_say(line);
}

/* Some of it is another's now. */
static void tell_half(const struct target *t, int code, struct error *err)
{
	struct error was = *err;
	char line[ERROR_MSG_BYTES];

	if (stop_signal()) {
		snprintf(line, sizeof(line), "%.200s: is partly written now",
			 t->name);
		cmd_say(line);
		return;
	}
	error_clear(err);
	error_set(err, code, was.off, "%.400s; it is partly written now",
		  was.msg);
}

static int to_target(struct convert *c, struct input *in, struct error *err)
{
	CLEANUP(target_done) struct target t = { 0 };
	const struct image *img = in->img;
	uint64_t bytes;
	int r = open_target(c, in, &t, &bytes, err);

	if (r >= 0)
		r = check_another(&t, img, err);
	if (r >= 0)
		r = check_fits(c, in, &t, bytes, err);
	if (r < 0)
		return r;
	tell_rest(c, &t, img->bytes);
	r = fill_target(c, in, &t, &bytes, err);
	if (r < 0 && t.touched)
		tell_half(&t, r, err);
	if (r >= 0 && c->cmd.json)
		print_json(c, img->bytes, bytes, UINT64_MAX);
	return r;
}

/* ---- what is read ---- */

static int open_stream(struct convert *c, struct input *in, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct open_options options;
	bool to_file = !stream_is(c->output) && !c->existing;
	int r = stream_read(to_file ? c->output : NULL, c->overwrite,
			    &in->spool, &src, err);

	if (r < 0)
		return r;
	config_open_options(&c->cmd.config, &options);
	options.src = src;
	/* It was made elsewhere, and nothing that it names is meant here. */
	options.alone = in->spool.dst != NULL;
	return image_open("standard input", &options, &in->img, err);
}

/* Which file has the state that an increment is made from. */
static int take_named_base(struct convert *c, struct input *in,
			   struct error *err)
{
	CLEANUP(freep) char *path = output_beside(c->output, c->base);
	struct open_options options;
	int r;

	config_open_options(&c->cmd.config, &options);
	options.format = c->base_format;
	r = path ? image_open(path, &options, &in->base, err)
		 : error_set(err, -ENOMEM, 0, "out of memory");
	if (r < 0)
		return r;
	if (!in->from)
		in->from = image_ref(in->base);
	if (in->base->bytes != in->from->bytes)
		return error_set(err, -EINVAL, 0,
				 "%s: has %" PRIu64 " bytes, the state that it "
				 "stands for %" PRIu64,
				 path, in->base->bytes, in->from->bytes);
	return 0;
}

/* The file of the base's top, named from the output's folder. To be freed. */
static char *name_from_output(const struct convert *c, const struct input *in)
{
	CLEANUP(freep)
	char *base = realpath(in->base->chain.layers[0]->path, NULL);
	CLEANUP(freep) char *beside = output_beside(c->output, ".");
	CLEANUP(freep) char *folder = beside ? realpath(beside, NULL) : NULL;
	const char *slash = base ? strrchr(base, '/') : NULL;

	if (!slash || !folder)
		return NULL;
	if (strlen(folder) == (size_t)(slash - base) &&
	    !strncmp(base, folder, strlen(folder)))
		return strdup(slash + 1);
	return TAKE_PTR(base);
}

/* A copy that replaced what it lies on would lie on itself. */
static int check_not_below(const struct convert *c, const struct input *in,
			   struct error *err)
{
	const struct chain *below = &in->base->chain;
	struct stat st;
	unsigned int i;

	for (i = 0; i < below->depth && !stat(c->output, &st); i++)
		if (identity_is_file(&below->layers[i]->identity, &st))
			return error_set(err, -EINVAL, 0,
					 "%s: is what the increment lies on",
					 c->output);
	return 0;
}

static int open_base(struct convert *c, struct input *in, struct error *err)
{
	CLEANUP(freep) char *name = NULL;
	int r;

	if (c->output_given && !c->qcow2)
		return error_set(err, -EINVAL, 0, "an increment is qcow2");
	if (stream_is(c->output) || c->existing)
		return error_set(err, -EINVAL, 0,
				 "%s: an increment is a file of its own",
				 c->output);
	c->qcow2 = true;
	r = c->base ? take_named_base(c, in, err) : 0;
	if (r >= 0)
		r = check_not_below(c, in, err);
	if (r < 0)
		return r;
	name = c->base ? strdup(c->base) : name_from_output(c, in);
	if (!name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = overlays_base_format(in->base, in->base_format, err);
	return r < 0 ? r
		     : overlays_base_name(in->base, name, &in->base_name, err);
}

static int open_operand(struct convert *c, struct input *in, struct error *err)
{
	CLEANUP(operand_change_done) struct operand_change o = { 0 };
	int r = operand_open_change(&c->cmd.config, c->cmd.image,
				    c->cmd.config.format, &o, err);

	if (r < 0)
		return r;
	in->img = TAKE_PTR(o.to);
	in->from = TAKE_PTR(o.from);
	if (!in->from || c->base)
		return 0;
	if (!o.from_is_file)
		return error_set(
			err, -EINVAL, 0,
			"%s: the first state lies inside a file, which "
			"no image can name: -B names the file that "
			"has it",
			c->cmd.image);
	in->base = image_ref(in->from);
	return 0;
}

static int open_input(struct convert *c, struct input *in, struct error *err)
{
	int r = stream_is(c->cmd.image) ? open_stream(c, in, err)
					: open_operand(c, in, err);

	if (r >= 0)
		cmd_remark(in->img->chain.layers[0], c->cmd.image);
	if (r >= 0 && (c->base || in->base))
		r = open_base(c, in, err);
	return r;
}

/* Is what standard input brought, as it was kept, the very disk? */
static bool is_done(const struct convert *c, const struct input *in)
{
	return in->spool.dst && !c->qcow2 && !c->existing &&
	       !stream_is(c->output) &&
	       !strcmp(in->img->chain.layers[0]->ops->name, "raw");
}

/* Of a qcow2 file that ends within a sector QEMU leaves that out, saying nothing. */
static void tell_part_sector(const struct convert *c, uint64_t bytes)
{
	char line[ERROR_MSG_BYTES];

	if (!c->qcow2 || !(bytes % QEMU_SECTOR_BYTES))
		return;
	snprintf(line, sizeof(line),
		 "%.200s: is a disk of %" PRIu64 " bytes, of which QEMU leaves "
		 "out the last %u: it knows whole sectors of %u",
		 c->output, bytes, (unsigned int)(bytes % QEMU_SECTOR_BYTES),
		 QEMU_SECTOR_BYTES);
	cmd_say(line);
}

int convert_run(struct convert *c, struct error *err)
{
	CLEANUP(input_done) struct input in = { 0 };
	int r = open_input(c, &in, err);

	if (r < 0)
		return r;
	tell_part_sector(c, in.img->bytes);
	if (is_done(c, &in))
		return commit(c, &in.spool, in.img->bytes, err);
	if (c->existing)
		return to_target(c, &in, err);
	return stream_is(c->output) ? to_stdout(c, &in, err)
				    : to_file(c, &in, err);
}
