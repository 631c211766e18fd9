/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Images of containers as disks with an ext4 file system, which is made at opening;
 * files' data stay in the archive.
 *
 *	docker save	a tar with manifest.json: [{"RepoTags", "Layers": [NAME]}]
 *	OCI layout	oci-layout, index.json, blobs/sha256/HEX, in a folder or a
 *			tar (image-spec 1.0, "OCI Image Layout")
 *	docker export	a tar of all files: one layer
 */
#include "formats/rootfs/docker.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "formats/codec/openssl.h"
#include "formats/containers/package.h"
#include "formats/format.h"
#include "formats/layer.h"
#include "formats/new-file.h"
#include "formats/rootfs/ext4.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"

#define JSON_BYTES_MAX	 (4U << 20)
#define INDEX_DEPTH_MAX	 4U /* indexes of indexes */
#define NAMES_BYTES	 512U
#define LAYOUT_BYTES_MAX 1024U
#define PRINT_READ_BYTES (64U << 10)

struct docker {
	struct container *archive; /* NULL: a folder */
	struct source *layers[TREE_LAYERS_MAX];
	uint32_t n_layers;
	struct source *meta; /* all of the disk but the files' data */
	struct ext4_disk disk;
	size_t names;
	char *contents; /* names that tell of what is in the layers */
};

bool docker_is(const struct container *c, bool no_disk)
{
	static const char *const machine[] = { "etc/passwd", "etc/os-release",
					       "usr/lib/os-release", "bin/sh",
					       "usr/bin/env" };
	size_t i;

	if (c->ops != &container_tar)
		return false;
	if (container_find(c, "oci-layout") ||
	    container_find(c, "manifest.json"))
		return true;
	for (i = 0; no_disk && i < ARRAY_SIZE(machine); i++)
		if (container_find(c, machine[i]))
			return true;
	return false;
}

/* ---- files of the image ---- */

static int open_file(struct layer *l, const char *name, struct source **ret,
		     struct error *err)
{
	struct docker *d = l->state;
	const struct member *m;
	char safe[256];
	int r;

	if (!d->archive) {
		r = layer_open_file(l, name, "file of the image", 0, ret, err);
		if (r >= 0)
			source_ref(*ret);
		return r;
	}
	m = container_find(d->archive, name);
	if (m)
		return container_open_member(d->archive, m, ret, err);
	text_escape(safe, sizeof(safe), name);
	return error_set(err, -EBADMSG, 0, "has no member \"%s\"", safe);
}

static int read_json(struct layer *l, const char *name, json_t **ret,
		     struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(freep) char *text = NULL;
	json_error_t why;
	int r = open_file(l, name, &src, err);

	if (r >= 0 && src->bytes > JSON_BYTES_MAX)
		r = error_set(err, -EFBIG, 0,
			      "%.128s: %" PRIu64
			      " bytes are over the limit of %u",
			      name, src->bytes, JSON_BYTES_MAX);
	if (r >= 0)
		text = malloc((size_t)src->bytes + 1);
	if (r >= 0 && !text)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	if (r >= 0)
		r = source_read(src, text, (size_t)src->bytes, 0, err);
	if (r < 0)
		return r;
	*ret = json_loadb(text, (size_t)src->bytes, JSON_REJECT_DUPLICATES,
			  &why);
	return *ret ? 0
		    : error_set(err, -EBADMSG, 0, "%.128s: it is no JSON",
				name);
}

/* Those of the configuration and of blobs are digests of what they hold. */
static int note_name(struct docker *d, const char *name, struct error *err)
{
	char *longer;

	if (asprintf(&longer, "%s%s\n", d->contents ? d->contents : "", name) <
	    0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	free(d->contents);
	d->contents = longer;
	return 0;
}

static int add_layer(struct layer *l, const char *name, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct docker *d = l->state;
	unsigned int streams = 0;
	int r;

	if (d->n_layers == TREE_LAYERS_MAX)
		return error_set(err, -EFBIG, 0, "more than %u layers",
				 TREE_LAYERS_MAX);
	r = open_file(l, name, &src, err);
	if (r >= 0)
		r = note_name(d, name, err);
	if (r >= 0)
		r = stream_peel(
			&src,
			&(struct stream_options){
				.sure = true,
				.ratio_max = l->options->alone
						     ? STREAM_RATIO_ALONE
						     : STREAM_RATIO_MAX },
			&streams, err);
	if (r < 0)
		return r;
	d->layers[d->n_layers++] = TAKE_PTR(src);
	return 0;
}

/* ---- which image ---- */

/* Of several, the one that member= names. */
struct choice {
	const char *wanted; /* NULL: there must be one alone */
	json_t *found;
	size_t n, n_found;
	char names[NAMES_BYTES];
};

static void offer(struct choice *c, const char *name, json_t *it)
{
	size_t used = strlen(c->names);

	c->n++;
	if (!c->wanted || (name && !strcmp(name, c->wanted))) {
		c->found = it;
		c->n_found++;
	}
	if (!name || used + 8 >= sizeof(c->names))
		return;
	if (used)
		used += (size_t)sprintf(c->names + used, ", ");
	text_escape(c->names + used, sizeof(c->names) - used, name);
}

static int decide(const struct choice *c, json_t **ret, struct error *err)
{
	char safe[256];

	if (c->n_found == 1) {
		*ret = c->found;
		return 0;
	}
	if (!c->n)
		return error_set(err, -EBADMSG, 0, "has no images");
	if (!c->wanted || c->n_found)
		return error_set(err, -ENOTUNIQ, 0,
				 "is an archive of several images: name one "
				 "with %s: %s",
				 AS_GIVEN("member=", "--member"), c->names);
	text_escape(safe, sizeof(safe), c->wanted);
	return error_set(err, -ENOENT, 0, "has no image \"%s\", but %s", safe,
			 c->names);
}

static const char *text_of(json_t *j, const char *key)
{
	return json_string_value(json_object_get(j, key));
}

/* ---- docker save ---- */

static void offer_tags(struct choice *c, json_t *image)
{
	json_t *tags = json_object_get(image, "RepoTags");
	size_t i;

	if (!json_array_size(tags))
		offer(c, NULL, image);
	for (i = 0; i < json_array_size(tags); i++)
		if (i == 0 || c->wanted)
			offer(c, json_string_value(json_array_get(tags, i)),
			      image);
}

static int add_layers(struct layer *l, json_t *names, struct error *err)
{
	const char *name;
	size_t i;
	int r = 0;

	for (i = 0; i < json_array_size(names) && r >= 0; i++) {
		name = json_string_value(json_array_get(names, i));
		r = name ? add_layer(l, name, err)
			 : error_set(err, -EBADMSG, 0,
				     "manifest.json: a layer has no name");
	}
	return r;
}

static int find_docker(struct layer *l, struct error *err)
{
	struct choice c = { .wanted = l->options->member };
	json_t *manifest = NULL, *image = NULL;
	size_t i;
	int r = read_json(l, "manifest.json", &manifest, err);

	for (i = 0; r >= 0 && i < json_array_size(manifest); i++)
		offer_tags(&c, json_array_get(manifest, i));
	if (r >= 0)
		r = decide(&c, &image, err);
	if (r >= 0 && text_of(image, "Config"))
		r = note_name(l->state, text_of(image, "Config"), err);
	if (r >= 0)
		r = add_layers(l, json_object_get(image, "Layers"), err);
	json_decref(manifest);
	return r;
}

/* ---- OCI ---- */

/* "sha256:HEX" as its blob's name. */
static int blob_name(json_t *descriptor, char ret[160], struct error *err)
{
	const char *digest = text_of(descriptor, "digest");
	const char *colon = digest ? strchr(digest, ':') : NULL;
	size_t n = colon ? (size_t)(colon - digest) : 0;
	const char *letters = "0123456789abcdefghijklmnopqrstuvwxyz";

	if (!n || n > 16 || strspn(digest, letters) != n || !colon[1] ||
	    strlen(colon + 1) > 128 ||
	    colon[1 + strspn(colon + 1, "0123456789abcdef")])
		return error_set(err, -EBADMSG, 0,
				 "index.json: a digest is none");
	snprintf(ret, 160, "blobs/%.*s/%s", (int)n, digest, colon + 1);
	return 0;
}

/* Is it for another kind of machine? */
static bool is_foreign(json_t *descriptor)
{
	json_t *platform = json_object_get(descriptor, "platform");
	const char *os = text_of(platform, "os");
	const char *arch = text_of(platform, "architecture");
#if defined(__x86_64__)
	const char *own = "amd64";
#elif defined(__aarch64__)
	const char *own = "arm64";
#else
	const char *own = arch;
#endif

	return (os && strcmp(os, "linux") != 0) ||
	       (arch && strcmp(arch, own) != 0);
}

static const char *ref_name(json_t *descriptor)
{
	return text_of(json_object_get(descriptor, "annotations"),
		       "org.opencontainers.image.ref.name");
}

/* Of @index, whose manifests of one name differ in their machines. */
static int choose_manifest(json_t *index, const char *wanted, json_t **ret,
			   struct error *err)
{
	json_t *list = json_object_get(index, "manifests"), *m;
	struct choice c = { .wanted = wanted };
	size_t i, own = 0;

	for (i = 0; i < json_array_size(list); i++)
		own += !is_foreign(json_array_get(list, i));
	for (i = 0; i < json_array_size(list); i++) {
		m = json_array_get(list, i);
		if (!own || !is_foreign(m))
			offer(&c, ref_name(m), m);
	}
	return decide(&c, ret, err);
}

static int add_blobs(struct layer *l, json_t *manifest, struct error *err)
{
	json_t *layers = json_object_get(manifest, "layers");
	char name[160];
	size_t i;
	int r = 0;

	if (!json_is_array(layers))
		return error_set(err, -EBADMSG, 0,
				 "the image's manifest has no layers");
	for (i = 0; i < json_array_size(layers) && r >= 0; i++) {
		r = blob_name(json_array_get(layers, i), name, err);
		if (r >= 0)
			r = add_layer(l, name, err);
	}
	return r;
}

static int find_oci(struct layer *l, struct error *err)
{
	const char *wanted = l->options->member;
	json_t *at = NULL, *next = NULL, *chosen;
	char name[160];
	unsigned int depth = 0;
	int r = read_json(l, "index.json", &at, err);

	while (r >= 0 && json_object_get(at, "manifests")) {
		if (++depth > INDEX_DEPTH_MAX)
			r = error_set(err, -EBADMSG, 0,
				      "index.json: indexes are more than %u "
				      "deep",
				      INDEX_DEPTH_MAX);
		if (r >= 0)
			r = choose_manifest(at, wanted, &chosen, err);
		if (r >= 0)
			r = blob_name(chosen, name, err);
		if (r >= 0)
			r = read_json(l, name, &next, err);
		if (r < 0)
			break;
		json_decref(at);
		at = TAKE_PTR(next);
		wanted = NULL;
	}
	if (r >= 0)
		r = add_blobs(l, at, err);
	json_decref(at);
	return r;
}

/* ---- the disk ---- */

static int find_layers(struct layer *l, struct error *err)
{
	struct docker *d = l->state;
	int r = container_open(l->src, NULL, l->path, true, &d->archive, err);

	if (r < 0)
		return r;
	if (!d->archive)
		return find_oci(l, err);
	if (container_find(d->archive, "manifest.json"))
		return find_docker(l, err);
	if (container_find(d->archive, "oci-layout"))
		return find_oci(l, err);
	if (l->options->member)
		return error_set(err, -ENOENT, 0, "has one image, of no name");
	d->layers[d->n_layers++] = source_ref(l->src);
	return 0;
}

static int build_tree(const struct docker *d, struct tree *t, struct error *err)
{
	uint32_t i;
	int r = 0;

	for (i = 0; i < d->n_layers && r >= 0; i++) {
		r = tree_add_layer(t, d->layers[i], err);
		if (r < 0)
			error_prefix(err, "layer %u", i + 1);
	}
	return r;
}

static int build_disk(struct docker *d, uint64_t bytes, struct error *err)
{
	struct tree t;
	int fd = -1, r = tree_init(&t, err);

	if (r < 0)
		return r;
	r = build_tree(d, &t, err);
	d->names = t.n_nodes;
	if (r >= 0)
		r = new_file_nameless(new_file_temp_folder(), &fd, err);
	if (r >= 0)
		r = ext4_make(&t, bytes, fd, &d->disk, err);
	tree_done(&t);
	if (r >= 0)
		return file_source_adopt(fd, 0, &d->meta, err);
	if (fd >= 0)
		close(fd);
	return r;
}

/* The file of a layout's version, beside which the rest lies. */
static bool docker_probe(struct source *src, const uint8_t *head, size_t bytes)
{
	return src->bytes <= LAYOUT_BYTES_MAX && bytes && head[0] == '{' &&
	       memmem(head, bytes, "imageLayoutVersion", 18);
}

static int docker_open(struct layer *l, struct error *err)
{
	struct docker *d = l->state;
	int r = find_layers(l, err);

	if (r >= 0)
		r = build_disk(d, l->options->said_bytes, err);
	if (r < 0)
		return r;
	l->bytes = d->disk.bytes;
	l->unit_bytes = EXT4_BLOCK_BYTES;
	return 0;
}

static void docker_close(struct layer *l)
{
	struct docker *d = l->state;
	uint32_t i;

	for (i = 0; i < d->n_layers; i++)
		source_unref(d->layers[i]);
	container_unref(d->archive);
	source_unref(d->meta);
	free(d->disk.runs);
	free(d->contents);
}

/* The first run that ends behind @off. */
static size_t find_run(const struct ext4_disk *d, uint64_t off)
{
	size_t low = 0, high = d->n_runs, middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (d->runs[middle].at + d->runs[middle].len > off)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static int docker_map(struct layer *l, uint64_t guest_off, uint64_t len,
		      struct extent *ret, struct error *err)
{
	const struct docker *d = l->state;
	size_t i = find_run(&d->disk, guest_off);
	const struct ext4_run *r = i < d->disk.n_runs ? d->disk.runs + i : NULL;

	ret->kind = EXTENT_DATA;
	if (r && r->at <= guest_off) {
		ret->src = d->layers[r->layer];
		ret->host_off = r->off + (guest_off - r->at);
		ret->len = min_u64(len, r->at + r->len - guest_off);
		return 0;
	}
	/* Tables, folders, and the zeroes behind files' ends. */
	ret->src = d->meta;
	ret->host_off = guest_off;
	ret->len = r ? min_u64(len, r->at - guest_off) : len;
	return 0;
}

/* What the kept part of the disk has, where it has something. */
static int print_meta(const struct docker *d, EVP_MD_CTX *md, struct error *err)
{
	CLEANUP(freep) uint8_t *buf = malloc(PRINT_READ_BYTES);
	uint64_t at = 0, len;
	bool hole;
	int r = buf ? 0 : error_set(err, -ENOMEM, 0, "out of memory");

	for (; r >= 0 && at < d->meta->bytes; at += len) {
		hole = false;
		len = d->meta->bytes - at;
		if (source_find_hole(d->meta, at, len, &hole, &len) >= 0 &&
		    hole)
			continue;
		len = min_u64(len, PRINT_READ_BYTES);
		r = source_read(d->meta, buf, len, at, err);
		if (r < 0 || is_all_zero(buf, len))
			continue;
		if (!openssl.EVP_DigestUpdate(md, &at, sizeof(at)) ||
		    !openssl.EVP_DigestUpdate(md, buf, len))
			r = error_set(err, -EIO, 0, "OpenSSL has no digest");
	}
	return r;
}

static int docker_print(const struct layer *l,
			char ret[FORMAT_PRINT_DIGITS + 1], struct error *err)
{
	const struct docker *d = l->state;
	uint8_t digest[EVP_MAX_MD_SIZE];
	EVP_MD *type = NULL;
	EVP_MD_CTX *md = NULL;
	unsigned int i;
	int r = openssl_load(err);

	if (r < 0)
		return r;
	type = openssl.EVP_MD_fetch(NULL, "SHA256", NULL);
	md = type ? openssl.EVP_MD_CTX_new() : NULL;
	if (!md || !openssl.EVP_DigestInit_ex2(md, type, NULL))
		r = error_set(err, -EIO, 0, "OpenSSL has no digest");
	if (r >= 0 && d->contents)
		openssl.EVP_DigestUpdate(md, d->contents, strlen(d->contents));
	for (i = 0; r >= 0 && i < d->disk.n_runs; i++) {
		const struct ext4_run *run = &d->disk.runs[i];
		const uint64_t what[] = { run->at, run->len, run->off,
					  run->layer };

		openssl.EVP_DigestUpdate(md, what, sizeof(what));
	}
	if (r >= 0)
		r = print_meta(d, md, err);
	if (r >= 0 && !openssl.EVP_DigestFinal_ex(md, digest, NULL))
		r = error_set(err, -EIO, 0, "OpenSSL has no digest");
	openssl.EVP_MD_CTX_free(md);
	openssl.EVP_MD_free(type);
	for (i = 0; r >= 0 && i < FORMAT_PRINT_DIGITS / 2; i++)
		snprintf(ret + 2 * (size_t)i, 3, "%02x", digest[i]);
	return r;
}

static void docker_info(struct layer *l, struct info_sink *s)
{
	const struct docker *d = l->state;

	s->text(s, "file-system", "ext4");
	s->number(s, "layers", d->n_layers);
	s->number(s, "names", d->names);
}

const struct format_ops docker_format = {
	.name = DOCKER_FORMAT,
	.magic = { { 257, 5, "ustar" } },
	.probe = docker_probe,
	.folder_file = "oci-layout",
	.made = true,
	.print = docker_print,
	.state_bytes = sizeof(struct docker),
	.open = docker_open,
	.close = docker_close,
	.map = docker_map,
	.info = docker_info,
};
