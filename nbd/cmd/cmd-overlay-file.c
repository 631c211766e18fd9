/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "formats/overlay/overlay.h"
#include "nbd/cmd/cmd-overlay.h"
#include "nbd/cmd/output.h"
#include "nbd/overlays.h"
#include "nbd/cmd/progress.h"
#include "nbd/cmd/stop.h"

struct work {
	const struct overlay_file_options *options;
	struct open_options open;
	const char *path;
	struct overlay *o;
	struct progress progress;
};

static int tell(void *opaque, uint64_t done_bytes)
{
	struct work *w = opaque;

	if (stop_signal())
		return -EINTR;
	progress_tell(&w->progress, done_bytes);
	return 0;
}

static void begin(struct work *w, const char *what)
{
	stop_catch();
	progress_begin(&w->progress, what, overlay_bytes(w->o),
		       w->options->quiet);
}

/* ---- commit ---- */

static int commit(struct work *w, struct error *err)
{
	int r;

	begin(w, "commit");
	r = overlay_commit(w->o, &w->open, tell, w, err);
	progress_end(&w->progress);
	if (!r && !w->options->keep)
		r = overlay_empty(w->o, err);
	return r;
}

/* ---- rebase ---- */

static int check_loop(const struct work *w, const struct image *base,
		      const struct layer *top, struct error *err)
{
	unsigned int i;

	for (i = 0; i < base->chain.depth; i++)
		if (identity_is_same(&base->chain.layers[i]->identity,
				     &top->identity))
			return error_set(err, -ELOOP, 0,
					 "%s: lies over %s itself",
					 w->options->base, w->path);
	return 0;
}

static int open_base(const struct work *w, struct image **ret,
		     struct error *err)
{
	CLEANUP(freep) char *path = output_beside(w->path, w->options->base);
	struct open_options options = w->open;
	CLEANUP(layer_unrefp) struct layer *top = NULL;
	struct image *base = NULL;
	int r;

	if (!path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	options.format = w->options->base_format;
	r = image_open(path, &options, &base, err);
	if (r < 0)
		return r;
	options.format = "qcow2";
	/* We have it open to write it. */
	options.lock = false;
	options.writer = true;
	r = chain_open_top(w->path, &options, &top, err);
	if (r >= 0)
		r = check_loop(w, base, top, err);
	if (r < 0)
		image_unref(base);
	else
		*ret = base;
	return r;
}

static int rebase(struct work *w, struct error *err)
{
	CLEANUP(image_unrefp) struct image *base = NULL;
	CLEANUP(freep) char *name = NULL;
	char format[LAYER_FORMAT_BYTES];
	bool any = *w->options->base;
	int r = any ? open_base(w, &base, err) : 0;

	if (r >= 0 && any)
		r = overlays_base_format(base, format, err);
	if (r >= 0 && any)
		r = overlays_base_name(base, w->options->base, &name, err);
	if (r < 0)
		return r;
	begin(w, "rebase");
	r = overlay_rebase(w->o, base, name, any ? format : NULL,
			   w->options->unsafe, tell, w, err);
	progress_end(&w->progress);
	return r;
}

/* ---- all ---- */

static int carry_out(struct work *w, int n, char **operands, struct error *err)
{
	uint64_t bytes;

	if (!strcmp(operands[0], "commit"))
		return commit(w, err);
	if (!strcmp(operands[0], "rebase"))
		return rebase(w, err);
	/* That is what it was opened for. */
	if (!strcmp(operands[0], "recover"))
		return 0;
	return n == 3 && config_size(operands[2], &bytes)
		       ? overlay_resize(w->o, bytes, err)
		       : error_set(err, -EINVAL, 0, "\"%s\" is no size",
				   operands[2]);
}

bool overlay_file_knows(int n, char **operands)
{
	return (n == 2 && (!strcmp(operands[0], "commit") ||
			   !strcmp(operands[0], "recover") ||
			   !strcmp(operands[0], "rebase"))) ||
	       (n == 3 && !strcmp(operands[0], "resize"));
}

int overlay_file_run(struct cmd *c, const struct overlay_file_options *options,
		     int n, char **operands)
{
	struct work w = { .options = options, .path = operands[1] };
	struct overlay_options how = { 0 };
	struct error err = { 0 };
	int r;

	if (!strcmp(operands[0], "rebase") && !options->base)
		return cmd_usage(c, "over what? --base NAME is missing");
	r = config_apply(&c->config, cmd_say, &err);
	config_open_options(&c->config, &w.open);
	how.open = w.open;
	/* It may be gone: --unsafe is for that. */
	how.alone = options->unsafe;
	how.discard_log = options->discard && !strcmp(operands[0], "recover");
	if (r >= 0)
		r = overlay_open(w.path, NULL, NULL, &how, &w.o, &err);
	if (r >= 0) {
		r = carry_out(&w, n, operands, &err);
		if (r < 0 && !stop_signal() && !strstr(err.msg, w.path))
			error_prefix(&err, "%s", w.path);
		overlay_unref(w.o);
	}
	if (r >= 0)
		return STATUS_OK;
	return stop_signal() ? 128 + stop_signal() : cmd_fail(&err);
}
