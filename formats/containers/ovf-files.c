/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * OVF packages: a descriptor beside the files that it names, or, in an OVA, in one
 * tar archive with them (DSP0243, "Distribution of OVF packages").
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "formats/containers/container.h"
#include "formats/containers/package.h"
#include "iouring/util.h"

/* XML, of which an Envelope is the first or one of the first elements. */
static bool probe(const uint8_t *head, size_t bytes)
{
	static const char mark[] = "\xef\xbb\xbf";
	size_t i = bytes >= 3 && !memcmp(head, mark, 3) ? 3 : 0;
	const uint8_t *envelope;

	while (i < bytes && strchr(" \t\r\n", head[i]) && head[i])
		i++;
	if (i == bytes || head[i] != '<')
		return false;
	envelope = memmem(head + i, bytes - i, "Envelope", 8);
	return envelope && strchr("<:", envelope[-1]) &&
	       memmem(head + i, bytes - i, "envelope", 8); /* its name space */
}

static int read_text(struct source *src, uint8_t **ret, struct error *err)
{
	uint8_t *text;
	int r;

	if (src->bytes > OVF_BYTES_MAX)
		return error_set(err, -EFBIG, 0,
				 "OVF descriptor of %" PRIu64
				 " bytes is over the limit of %u",
				 src->bytes, OVF_BYTES_MAX);
	text = malloc((size_t)src->bytes + 1);
	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(src, text, (size_t)src->bytes, 0, err);
	if (r < 0)
		free(text);
	else
		*ret = text;
	return r;
}

static int parse_source(struct source *src, struct ovf *ret, struct error *err)
{
	CLEANUP(freep) uint8_t *text = NULL;
	int r = read_text(src, &text, err);

	return r < 0 ? r : ovf_parse(text, (size_t)src->bytes, ret, err);
}

static int add_files(struct container *c, const struct ovf *o,
		     struct error *err)
{
	const struct ovf_file *f;
	size_t i;
	int r = 0;

	for (i = 0; i < o->n_files && r >= 0; i++) {
		f = &o->files[i];
		if (!f->href || container_find(c, f->href))
			continue;
		if (f->chunk_bytes)
			r = container_add(
				c,
				&(struct member){
					.name = f->href,
					.unreadable = "lies in several files, "
						      "which is read in an OVA "
						      "alone" },
				err);
		else
			r = container_add_file(c, f->href, err);
	}
	return r;
}

/* The descriptor itself is the first. */
static int list(struct container *c, struct error *err)
{
	CLEANUP(ovf_done) struct ovf o = { 0 };
	const char *slash = strrchr(c->path, '/');
	struct member own = { .name = slash ? (char *)slash + 1 : c->path,
			      .bytes = c->src->bytes };
	int r = parse_source(c->src, &o, err);

	if (r >= 0)
		r = container_add(c, &own, err);
	return r < 0 ? r : add_files(c, &o, err);
}

const struct container_ops container_ovf = {
	.name = "ovf",
	.what = "an OVF package",
	.probe = probe,
	.list = list,
};

/* ---- packages ---- */

bool container_name_ends(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);

	return n > m && !strcasecmp(name + n - m, end);
}

const struct member *package_file(const struct container *c, const char *end)
{
	size_t i;

	for (i = 0; i < c->n; i++)
		if (container_name_ends(c->members[i].name, end))
			return &c->members[i];
	return NULL;
}

int package_read(const struct container *c, struct ovf *ret,
		 const struct member **ret_m, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	const struct member *m = c->ops == &container_ovf
					 ? &c->members[0]
					 : package_file(c, ".ovf");
	int r;

	*ret = (struct ovf){ 0 };
	*ret_m = m;
	if (!m)
		return error_set(err, -ENOENT, 0, "has no OVF descriptor");
	r = container_open_member(c, m, &src, err);
	if (r >= 0)
		r = parse_source(src, ret, err);
	if (r < 0)
		error_prefix(err, "%s", m->name);
	return r;
}

const struct member *package_disk(const struct container *c,
				  const struct ovf *o,
				  const struct member *descriptor,
				  const struct ovf_disk *d)
{
	const struct ovf_file *f = ovf_file_of(o, d);

	if (!f || c->ops == &container_ovf)
		return f ? container_find(c, f->href) : NULL;
	return container_find_beside(c, descriptor, f->href);
}

const struct member *package_find(const struct container *c, const char *id)
{
	CLEANUP(ovf_done) struct ovf o = { 0 };
	const struct member *descriptor;
	const struct ovf_disk *d;

	if (package_read(c, &o, &descriptor, NULL) < 0)
		return NULL;
	d = ovf_disk(&o, id);
	return d ? package_disk(c, &o, descriptor, d) : NULL;
}

/* ---- files in pieces ---- */

#define CHUNK_DIGITS 9U

/* Puts NAME.000000000, NAME.000000001, ... together to NAME. */
static int join(struct container *c, const char *first, struct error *err)
{
	size_t n = strlen(first) - CHUNK_DIGITS - 1;
	CLEANUP(freep) char *name = strndup(first, n);
	CLEANUP(freep) char *part = malloc(n + CHUNK_DIGITS + 2);
	struct member m = { .name = name, .sparse = true };
	struct member_run *runs;
	const struct member *p;

	if (!name || !part)
		return error_set(err, -ENOMEM, 0, "out of memory");
	while (m.n_runs < MEMBERS_MAX) {
		sprintf(part, "%s.%09u", name, (unsigned int)m.n_runs);
		p = container_find(c, part);
		if (!p || p->sparse || p->outside || p->unreadable)
			break;
		if (!(m.n_runs & (m.n_runs - 1))) {
			runs = reallocarray(m.runs, m.n_runs ? 2 * m.n_runs : 1,
					    sizeof(*runs));
			if (!runs) {
				free(m.runs);
				return error_set(err, -ENOMEM, 0,
						 "out of memory");
			}
			m.runs = runs;
		}
		m.runs[m.n_runs++] =
			(struct member_run){ m.bytes, p->bytes, p->off };
		m.bytes += p->bytes;
	}
	sprintf(part, "%s.%09u", name, (unsigned int)m.n_runs + 1);
	if (container_find(c, part))
		m.unreadable = "lies in several files, one of which is missing";
	return container_add(c, &m, err);
}

int package_join(struct container *c, struct error *err)
{
	size_t n = c->n, i;
	int r = 0;

	for (i = 0; i < n && r >= 0; i++)
		if (container_name_ends(c->members[i].name, ".000000000"))
			r = join(c, c->members[i].name, err);
	return r < 0 || c->n == n ? r : container_sort(c, err);
}
