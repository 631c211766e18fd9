/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What platter convert does. A file has its name when it is whole and safe, and
 * not before.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/overlay/qcow2-sink.h"
#include "iouring/write.h"
#include "nbd/cmd/convert.h"
#include "nbd/cmd/operand.h"
#include "nbd/cmd/output.h"
#include "nbd/cmd/stop.h"

static int tell(void *opaque, uint64_t done_bytes)
{
	struct convert *c = opaque;

	if (stop_signal())
		return -EINTR;
	progress_tell(&c->progress, done_bytes);
	return 0;
}

int convert_copy(struct convert *c, struct image *img, struct copy_sink *sink,
		 struct error *err)
{
	int r;

	progress_begin(&c->progress, "convert", img->bytes, c->quiet);
	r = copy_image(img, sink, c->threads, tell, c, err);
	progress_end(&c->progress);
	return r;
}

static int to_raw(struct convert *c, struct image *img, struct source *dst,
		  struct error *err)
{
	struct raw_sink s;
	int r;

	raw_sink_init(&s, dst);
	s.sink.name = c->output;
	r = convert_copy(c, img, &s.sink, err);
	return r < 0 ? r : source_truncate(dst, img->bytes, err);
}

static int to_qcow2(struct convert *c, struct image *img, struct source *dst,
		    struct error *err)
{
	uint32_t bits =
		c->cluster_bits ? c->cluster_bits : QCOW2_CREATE_CLUSTER_BITS;
	CLEANUP(qcow2_sink_done) struct qcow2_sink s = { 0 };
	int r;

	r = qcow2_sink_init(&s, dst, img->bytes, bits, c->compress, c->codec,
			    c->level, err);
	s.sink.name = c->output;
	if (r >= 0)
		r = convert_copy(c, img, &s.sink, err);
	if (r < 0)
		return r;
	r = qcow2_create_finish(s.file, err);
	if (r < 0)
		error_prefix(err, "%s", c->output);
	return r;
}

static void print_json(const struct convert *c, uint64_t disk_bytes,
		       uint64_t bytes, uint64_t room)
{
	json_t *j = json_object();

	json_object_set_new(j, "format",
			    json_string(c->qcow2 ? "qcow2" : "raw"));
	json_object_set_new(j, "virtual-size",
			    json_integer((json_int_t)disk_bytes));
	json_object_set_new(j, "file-size", json_integer((json_int_t)bytes));
	json_object_set_new(j, "actual-size", json_integer((json_int_t)room));
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

static int to_file(struct convert *c, struct image *img, struct error *err)
{
	CLEANUP(output_done) struct output out = { 0 };
	int r = output_begin(&out, c->output, c->overwrite, err);

	if (r >= 0)
		r = c->qcow2 ? to_qcow2(c, img, out.dst, err)
			     : to_raw(c, img, out.dst, err);
	return r < 0 ? r : commit(c, &out, img->bytes, err);
}

/* ---- what is read ---- */

struct input {
	struct output spool; /* what standard input brought; or nothing */
	struct image *img;
};

static void input_done(struct input *in)
{
	image_unref(in->img);
	output_done(&in->spool);
}

static int open_stream(struct convert *c, struct input *in, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct open_options options;
	int r = stream_read(stream_is(c->output) ? NULL : c->output,
			    c->overwrite, &in->spool, &src, err);

	if (r < 0)
		return r;
	config_open_options(&c->cmd.config, &options);
	options.src = src;
	/* It was made elsewhere, and nothing that it names is meant here. */
	options.alone = in->spool.dst != NULL;
	return image_open("standard input", &options, &in->img, err);
}

static int open_input(struct convert *c, struct input *in, struct error *err)
{
	int r = stream_is(c->cmd.image)
			? open_stream(c, in, err)
			: operand_open(&c->cmd.config, c->cmd.image,
				       c->cmd.config.format, &in->img, err);

	if (r >= 0)
		cmd_remark(in->img->chain.layers[0], c->cmd.image);
	return r;
}

/* Is what standard input brought, as it was kept, the very disk? */
static bool is_done(const struct convert *c, const struct input *in)
{
	return in->spool.dst && !c->qcow2 && !stream_is(c->output) &&
	       !strcmp(in->img->chain.layers[0]->ops->name, "raw");
}

int convert_run(struct convert *c, struct error *err)
{
	CLEANUP(input_done) struct input in = { 0 };
	int r = open_input(c, &in, err);

	if (r < 0)
		return r;
	if (is_done(c, &in))
		return commit(c, &in.spool, in.img->bytes, err);
	return stream_is(c->output) ? stream_write(c, in.img, err)
				    : to_file(c, in.img, err);
}
