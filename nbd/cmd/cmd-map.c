/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter map: where the bytes of a disk lie. Printed while it is walked, so
 * a million extents need no memory.
 */
#include <errno.h>
#include <inttypes.h>
#include <langinfo.h>
#include <string.h>
#include <sys/ioctl.h>

#include "formats/image.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/operand.h"
#include "nbd/text.h"

static const char help[] =
	"usage: platter map [options] IMAGE[@STATE]|URI\n"
	"\n"
	"Prints where the bytes of the disk lie: guest offset, length, the layer\n"
	"that has them (0: the top), what they are, host offset and file.\n"
	"On a terminal also draws the allocation of the whole disk in a line.\n"
	"\n"
	"      --bar            draw the line only, on a terminal or not\n"
	"  -f, --format NAME    the image's format (default: guess)\n"
	"  -s, --snapshot NAME  a snapshot inside the image, by id or name\n"
	"      --member NAME    of a container: which of its disks\n"
	"  -k, --key FILE       passphrase of an encrypted image\n"
	"      --allow X        a folder or prefix that images may refer to\n"
	"      --force parent   take a parent whose ids do not match\n"
	"      --force-share    read what another process may be writing\n"
	"      --credentials FILE, --ca FILE, --proxy URL, --remote-timeout SECONDS\n"
	"                      how images at URLs are read, see platter(1)\n"
	"      --cache-dir DIR, --cache-size SIZE\n"
	"                      keep what was read of URLs, and indexes of compressed\n"
	"                      files, in a folder\n"
	"      --cache SIZE     memory for caches (default 64M)\n"
	"      --io MODE        auto, uring or sync\n"
	"      --direct         read with O_DIRECT\n"
	"      --json           for programs, with qemu-img map's names\n"
	"  -h, --help\n";

struct mapper {
	struct image *img;
	uint64_t off; /* of pending */
	struct extent pending; /* grows until the next differs; len 0: none */
	bool table, json;
	uint64_t emitted;
	struct bar *bar; /* NULL: none */
};

static const char *what_text(const struct extent *e)
{
	switch (e->kind) {
	case EXTENT_DATA:
		return e->cipher ? "encrypted" : "data";
	case EXTENT_COMPRESSED:
		return "compressed";
	case EXTENT_DAMAGED:
		return "damaged";
	default:
		return e->absent ? "hole" : "zero";
	}
}

/* The name of the file that @e's bytes are in. */
static const char *file_name(const struct chain *c, const struct extent *e)
{
	const struct layer *l = c->layers[e->depth];
	unsigned int i;

	for (i = 0; i < l->n_files; i++)
		if (l->files[i].src == e->src)
			return l->files[i].name;
	return l->path;
}

static void emit_row(struct mapper *m, uint64_t off, const struct extent *e)
{
	printf("0x%-16" PRIx64 " 0x%-16" PRIx64 " %5u  %-10s", off, e->len,
	       e->depth, what_text(e));
	if (e->src) {
		printf(" 0x%-16" PRIx64 " ", e->host_off);
		cmd_put(stdout, file_name(&m->img->chain, e));
	}
	putchar('\n');
}

/* Does JSON say where in its file @e lies? */
static bool has_offset(const struct extent *e)
{
	/* Zeroes that have a source are a hole in that file. */
	return e->src && e->kind != EXTENT_COMPRESSED && !e->cipher;
}

static void emit_json(struct mapper *m, uint64_t off, const struct extent *e)
{
	bool data = e->kind == EXTENT_DATA || e->kind == EXTENT_COMPRESSED;

	printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
	       ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
	       m->emitted ? ",\n" : "[", off, e->len, e->depth,
	       e->absent ? "false" : "true",
	       e->kind == EXTENT_ZERO ? "true" : "false",
	       data ? "true" : "false");
	if (has_offset(e))
		printf(", \"offset\": %" PRIu64, e->host_off);
	if (e->kind == EXTENT_COMPRESSED)
		printf(", \"compressed\": true");
	if (e->kind == EXTENT_DAMAGED)
		printf(", \"damaged\": true");
	putchar('}');
}

static void flush_pending(struct mapper *m)
{
	if (!m->pending.len)
		return;
	if (m->bar)
		bar_add(m->bar, m->off, m->pending.len, &m->pending);
	if (m->json)
		emit_json(m, m->off, &m->pending);
	else if (m->table)
		emit_row(m, m->off, &m->pending);
	m->emitted++;
	m->pending.len = 0;
}

/* Does @e, which follows pending, only make it longer? */
static bool continues(const struct mapper *m, const struct extent *e)
{
	const struct extent *p = &m->pending;

	if (!p->len || p->kind != e->kind || p->depth != e->depth ||
	    p->absent != e->absent || !p->cipher != !e->cipher)
		return false;
	if (m->json && !has_offset(e))
		return !has_offset(p);
	if (e->kind == EXTENT_COMPRESSED)
		return p->src == e->src && p->host_off == e->host_off;
	return p->src == e->src &&
	       (!e->src || p->host_off + p->len == e->host_off);
}

static int each_extent(void *opaque, uint64_t off, const struct extent *e)
{
	struct mapper *m = opaque;

	/* A merge across the ends of two walks, and what JSON does not tell. */
	if (continues(m, e)) {
		m->pending.len += e->len;
		return 0;
	}
	flush_pending(m);
	m->off = off;
	m->pending = *e;
	return ferror(stdout) ? -EIO : 0; /* main() says it */
}

static int walk(struct mapper *m, struct error *err)
{
	uint64_t off = 0;
	int r = 0;

	while (r >= 0 && off < m->img->bytes)
		r = image_walk(m->img, off, m->img->bytes - off, each_extent, m,
			       &off, err);
	flush_pending(m);
	return r < 0 && !ferror(stdout) ? r : 0;
}

/* Width for the bar between its brackets. */
static unsigned int bar_columns(void)
{
	struct winsize w;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 10)
		return w.ws_col - 2U;
	return 78;
}

static int print_map(const struct cmd *c, struct image *img, bool bar)
{
	struct mapper m = { .img = img, .table = !bar, .json = c->json };
	struct bar drawn = { 0 };
	struct error err = { 0 };
	int r;

	if (!c->json && img->bytes && (bar || isatty(STDOUT_FILENO))) {
		if (bar_init(&drawn, img->bytes, bar_columns()) < 0) {
			error_set(&err, -ENOMEM, 0, "no memory");
			return cmd_fail(&err);
		}
		m.bar = &drawn;
	}
	if (!c->json && m.table)
		printf("%-18s %-18s %5s  %-10s %-18s %s\n", "Offset", "Length",
		       "Depth", "What", "Host offset", "File");
	r = walk(&m, &err);
	if (c->json)
		puts(m.emitted ? "]" : "[]");
	if (r >= 0 && m.bar)
		bar_print(m.bar, !strcmp(nl_langinfo(CODESET), "UTF-8"),
			  stdout);
	bar_done(&drawn);
	return r < 0 ? cmd_fail(&err) : STATUS_OK;
}

static int run_map(int argc, char **argv)
{
	enum { OPT_BAR = CMD_VERB };
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "snapshot", required_argument, NULL, 's' },
		{ "bar", no_argument, NULL, OPT_BAR },
		{ 0 },
	};
	CLEANUP(cmd_done) struct cmd c;
	CLEANUP(image_unrefp) struct image *img = NULL;
	struct error err = { 0 };
	int opt, status = -1;
	bool bar = false;

	cmd_init(&c, &verb_map);
	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "s:", options,
				  NULL)) != -1) {
		switch (opt) {
		case 's':
			status = cmd_param(&c, "snapshot", optarg);
			break;
		case OPT_BAR:
			bar = true;
			break;
		default:
			status = cmd_option(&c, opt, argv);
		}
		if (status >= 0)
			return status;
	}
	if (bar && c.json)
		return cmd_usage(&c,
				 "--bar is for people, --json for programs");
	status = cmd_image(&c, argc, argv);
	if (status >= 0)
		return status;
	if (operand_open(&c.config, c.config.image, c.config.format, &img,
			 &err) < 0)
		return cmd_fail(&err);
	return print_map(&c, img, bar);
}

const struct verb verb_map = {
	.name = "map",
	.summary = "where the bytes of a disk lie",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_map,
};
