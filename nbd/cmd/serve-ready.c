/* SPDX-License-Identifier: BSD-3-Clause */
/* platter serve: what it tells when it is ready. */
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>

#include "formats/cache.h"
#include "formats/chain.h"
#include "formats/containers/container.h"
#include "formats/place.h"
#include "formats/report.h"
#include "formats/streams/stream.h"
#include "iouring/batch.h"
#include "iouring/sources/disk-cache.h"
#include "iouring/util.h"
#include "nbd/cmd/qemu-options.h"
#include "nbd/cmd/serve.h"
#include "nbd/export-list.h"
#include "nbd/export-name.h"
#include "nbd/text.h"

#define EXPORTS_MAX   1000U
#define EXPORTS_SHOWN 20U /* as lines; --json has all */

/* ---- what is served ---- */

static int add_export(void *opaque, const char *name, const char *description)
{
	json_t *j = json_object();

	json_object_set_new(j, "name", report_text(name));
	json_object_set_new(j, "description", report_text(description));
	json_array_append_new(opaque, j);
	return 0;
}

static void look_at_image(struct serve *s, const char *name, const char *path,
			  const char *shown)
{
	CLEANUP(chain_done) struct chain chain = { 0 };
	CLEANUP(container_unrefp) struct container *archive = NULL;
	enum reference_verdict verdict;
	struct open_options options;
	size_t n = json_array_size(s->exports);
	json_t *j;

	config_open_options(&s->cmd.config, &options);
	options.while_decoded = true;
	options.key = NULL;
	options.key_bytes = 0;
	if (*name) {
		options.snapshot = NULL;
		options.said_bytes = 0;
		options.member = NULL;
	}
	if (n >= EXPORTS_MAX)
		return;
	n = EXPORTS_MAX - n;
	chain_open_partial(path, &options, &chain, &verdict, NULL);
	if (!chain.depth && !options.member)
		chain_open_container(path, &options, &archive, NULL);
	if (archive)
		export_list_members(archive, name, (unsigned int)n, add_export,
				    s->exports);
	if (!chain.depth)
		return;
	/* A layer's path has no secrets; that of an export is as it was given. */
	if (place_is_url(path))
		shown = chain.layers[0]->path;
	cmd_remark(chain.layers[0], shown);
	if (options.said_bytes && !chain.layers[0]->ops->made &&
	    !source_is_stream(chain.layers[0]->src))
		cmd_say("--size is ignored: the image's own size is known");
	j = json_object();
	json_object_set_new(j, "name", report_text(name));
	json_object_set_new(j, "image", report_text(shown));
	json_object_set_new(j, "format",
			    json_string(chain.layers[0]->ops->name));
	json_object_set_new(j, "virtual-size",
			    json_integer((json_int_t)chain.bytes));
	json_array_append_new(s->images, j);
	export_list(&chain, name, (unsigned int)n, add_export, s->exports);
}

void serve_look(struct serve *s)
{
	const struct config *c = &s->cmd.config;
	size_t i;

	s->images = json_array();
	s->exports = json_array();
	/* A ring would stay with this process, which reads no more. */
	engine_configure(ENGINE_SYNC, NULL);
	disk_cache_leave();
	if (c->image)
		look_at_image(s, "", c->image, s->cmd.image);
	for (i = 0; i < c->n_exports; i++)
		look_at_image(s, c->exports[i].name, c->exports[i].path,
			      c->exports[i].path);
	cache_shutdown();
}

/* ---- how it is reached ---- */

bool serve_needs_tls(const struct serve *s)
{
	return s->tls && !strcmp(s->tls, "require");
}

/* For clients of a server that demands TLS: how to authenticate. */
static char *uri_query(const struct serve *s)
{
	CLEANUP(freep) char *path = NULL;
	CLEANUP(freep) char *safe = NULL;
	char *ret;

	if (!serve_needs_tls(s) || !s->tls_psk)
		return NULL;
	path = realpath(s->tls_psk, NULL);
	safe = path ? text_percent(path, "/") : NULL;
	if (!safe || asprintf(&ret, "tls-psk-file=%s", safe) < 0)
		return NULL;
	return ret;
}

/*
 * The first that the file of keys has: with one key, he whom a client must say
 * that it is. NULL: nobody.
 */
static char *first_user(const struct serve *s)
{
	FILE *fp = serve_needs_tls(s) && s->tls_psk ? fopen(s->tls_psk, "re")
						    : NULL;
	char *line = NULL, *user = NULL;
	size_t room = 0, len;

	while (fp && !user && getline(&line, &room, fp) > 0) {
		len = strcspn(line, ":\n");
		if (*line != '#' && line[len] == ':' && len)
			user = strndup(line, len);
	}
	if (line)
		explicit_bzero(line, room);
	free(line);
	if (fp)
		fclose(fp);
	return user;
}

/* At the first place, or at the one that is @at. */
static char *make_uri(const struct serve *s, unsigned int at, const char *name)
{
	CLEANUP(freep) char *query = uri_query(s);
	CLEANUP(freep) char *user = first_user(s);

	return endpoint_uri(&s->listener.endpoints[at], serve_needs_tls(s),
			    user, name, query);
}

static void __attribute__((format(printf, 3, 4)))
add_line(json_t *lines, const char *name, const char *fmt, ...)
{
	char *line;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (r < 0)
		return;
	json_object_set_new(lines, name, report_text(line));
	free(line);
}

/* TCP: from this machine. */
static const char *host_of(const struct endpoint *e)
{
	if (!e->any)
		return e->address;
	return strchr(e->address, ':') ? "::1" : "127.0.0.1";
}

static char *qemu_options_at(const struct endpoint *e, const char *name)
{
	char host[12];

	switch (e->kind) {
	case ENDPOINT_UNIX:
		return qemu_options("unix", e->file.path, 0, name);
	case ENDPOINT_TCP:
		return qemu_options("inet", host_of(e), e->port, name);
	case ENDPOINT_VSOCK:
		snprintf(host, sizeof(host), "%u", VMADDR_CID_HOST);
		return qemu_options("vsock", host, e->port, name);
	}
	return NULL;
}

/* QEMU knows no URIs of vsock. */
static char *qemu_drive(const struct endpoint *e, const char *uri,
			const char *name, bool writable)
{
	const char *more = writable ? "discard=unmap" : "snapshot=on";
	CLEANUP(freep) char *options = NULL;
	char *ret;
	int r;

	/* Commas do not occur in a URI: they are encoded. */
	if (e->kind != ENDPOINT_VSOCK)
		r = asprintf(&ret, "file=%s,format=raw,if=virtio,%s", uri,
			     more);
	else if ((options = qemu_options_at(e, name)))
		r = asprintf(&ret, "%s,if=virtio,%s", options, more);
	else
		return NULL;
	return r < 0 ? NULL : ret;
}

/* It outlives a server; nbd-client, even with -persist, does not. */
static void add_qemu_nbd(json_t *lines, const struct endpoint *e,
			 const char *name, bool writable)
{
	CLEANUP(freep) char *options = qemu_options_at(e, name);
	CLEANUP(freep) char *word = options ? text_shell_word(options) : NULL;

	if (word)
		add_line(lines, "qemu-nbd",
			 "qemu-nbd -c /dev/nbd0 %s--image-opts %s",
			 writable ? "" : "-r ", word);
}

/* nbd-client takes no URIs. @name: of the export. */
static void add_nbd_client(json_t *lines, const struct endpoint *e,
			   const char *name, bool writable)
{
	CLEANUP(freep) char *path = NULL, *word = text_shell_word(name);
	const char *more = *name ? " -N " : "", *ro = writable ? "" : " -R";

	if (!word)
		return;
	if (!*name)
		*word = '\0'; /* '' */
	if (e->kind == ENDPOINT_TCP)
		add_line(lines, "nbd-client",
			 "nbd-client %s %" PRIu32 " /dev/nbd0%s%s%s",
			 host_of(e), e->port, more, word, ro);
	path = e->kind == ENDPOINT_UNIX ? text_shell_word(e->file.path) : NULL;
	if (path)
		add_line(lines, "nbd-client",
			 "nbd-client -unix %s /dev/nbd0%s%s%s", path, more,
			 word, ro);
}

/* Ready-made command lines by program, for export @name. */
static json_t *client_lines(const struct serve *s, const char *name)
{
	const struct endpoint *e = &s->listener.endpoints[0];
	CLEANUP(freep) char *uri = make_uri(s, 0, name);
	bool writable = s->cmd.config.overlay || s->cmd.config.overlay_temp;
	CLEANUP(freep)
	char *drive = uri ? qemu_drive(e, uri, name, writable) : NULL;
	CLEANUP(freep) char *word = uri ? text_shell_word(uri) : NULL;
	CLEANUP(freep) char *drive_word = drive ? text_shell_word(drive) : NULL;
	json_t *lines = json_object();

	if (!word || !drive_word)
		return lines;
	if (!serve_needs_tls(s)) { /* these do not take nbds URIs */
		add_line(lines, "qemu", "qemu-system-x86_64 -m 1G -drive %s",
			 drive_word);
		add_qemu_nbd(lines, e, name, writable);
		add_nbd_client(lines, e, name, writable);
	}
	add_line(lines, "nbdcopy", "nbdcopy --progress %s disk.raw", word);
	add_line(lines, "nbdfuse",
		 "mkdir -p mnt && nbdfuse %smnt/disk.raw %s &",
		 writable ? "" : "-r ", word);
	return lines;
}

/* ---- told as JSON ---- */

static json_t *all_uris(const struct serve *s, const char *name)
{
	json_t *ret = json_array();
	unsigned int i;

	for (i = 0; i < s->listener.n_endpoints; i++) {
		CLEANUP(freep) char *uri = make_uri(s, i, name);

		json_array_append_new(ret, json_string(uri));
	}
	return ret;
}

static void print_json(const struct serve *s, const char *name, json_t *lines,
		       pid_t pid)
{
	const struct config *c = &s->cmd.config;
	json_t *j = json_object(), *first = json_array_get(s->images, 0);
	json_t *uris = all_uris(s, name);

	if (c->image && first) {
		json_object_update(j, first);
		json_object_del(j, "name");
	}
	if (c->n_exports)
		json_object_set(j, "images", s->images);
	if (c->glance.store)
		json_object_set_new(j, "store", report_text(c->glance.store));
	json_object_set(j, "uri", json_array_get(uris, 0));
	json_object_set_new(j, "uris", uris);
	json_object_set(j, "exports", s->exports);
	json_object_set(j, "commands", lines);
	json_object_set_new(j, "via",
			    json_string(s->by_nbdkit ? "nbdkit" : "platter"));
	if (s->by_nbdkit)
		json_object_set_new(j, "nbdkit-version",
				    json_string(s->nbdkit));
	json_object_set_new(j, "server-pid", json_integer(pid));
	json_object_set_new(j, "supervised", json_boolean(!s->once));
	cmd_json_print(j, JSON_COMPACT);
}

/* ---- told as text ---- */

static uint64_t bytes_of(const json_t *image)
{
	return (uint64_t)json_integer_value(
		json_object_get(image, "virtual-size"));
}

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

/* One line each; several images' URIs are behind them. */
static void print_images(const struct serve *s)
{
	size_t i, n = json_array_size(s->images);
	bool alone = s->cmd.config.image && n == 1;
	char size[TEXT_BYTES_MAX];

	for (i = 0; i < n && i < EXPORTS_SHOWN; i++) {
		const json_t *j = json_array_get(s->images, i);
		const struct export_name e = { .image = (char *)text_of(
						       j, "name") };
		CLEANUP(freep) char *name = export_name_format(&e);
		CLEANUP(freep) char *uri = name ? make_uri(s, 0, name) : NULL;

		cmd_put(stdout, text_of(j, "image"));
		printf(": %s, %s (%" PRIu64 " bytes)", text_of(j, "format"),
		       text_bytes(size, bytes_of(j)), bytes_of(j));
		if (!alone && uri)
			printf(" at %s", uri);
		putchar('\n');
		text_odd_size(bytes_of(j), stdout);
	}
	if (i < n)
		printf("... and %zu more images: see --json\n", n - i);
}

static void print_places(const struct serve *s)
{
	const struct glance_config *g = &s->cmd.config.glance;
	unsigned int i;

	for (i = 0; i < s->listener.n_endpoints; i++) {
		CLEANUP(freep) char *uri = make_uri(s, i, "");

		printf("%s %s\n", i ? "        and at" : "serving at",
		       uri ? uri : "?");
	}
	if (g->store) {
		fputs("images of the store ", stdout);
		cmd_put(stdout, g->store);
		fputs(": by their ids or names", stdout);
		if (g->listen) {
			fputs(", and by HTTP at ", stdout);
			cmd_put(stdout, g->listen);
		}
		putchar('\n');
	}
	putchar('\n');
}

/* Earlier states, of one image; of several nbdinfo --list tells. */
static void print_states(const struct serve *s)
{
	size_t i, n = json_array_size(s->exports);

	if (n > 1)
		puts("\nearlier states");
	for (i = 1; i < n && i <= EXPORTS_SHOWN; i++)
		printf("           %s\n",
		       text_of(json_array_get(s->exports, i), "uri"));
	if (i < n)
		printf("           ... and %zu more: see platter info\n",
		       n - i);
}

static void print_text(const struct serve *s, json_t *lines)
{
	static const struct {
		const char *program, *use;
	} uses[] = { { "qemu", "boot" },
		     { "qemu-nbd", "attach" },
		     { "nbd-client", "" },
		     { "nbdcopy", "copy" },
		     { "nbdfuse", "as a file" } };
	size_t i;

	print_images(s);
	print_places(s);
	for (i = 0; i < ARRAY_SIZE(uses); i++) {
		const char *line = text_of(lines, uses[i].program);

		if (!*line)
			continue;
		printf("%-11s", uses[i].use);
		cmd_put(stdout, line);
		putchar('\n');
	}
	if (s->cmd.config.image && !s->cmd.config.n_exports)
		print_states(s);
}

void serve_print_ready(struct serve *s, pid_t pid)
{
	const char *name = text_of(json_array_get(s->exports, 0), "name");
	const struct config *c = &s->cmd.config;
	/* Of a store's images the user knows the names, not we. */
	json_t *lines = c->image || c->n_exports ? client_lines(s, name)
						 : json_object();
	json_t *export;
	size_t i;

	json_array_foreach(s->exports, i, export) {
		CLEANUP(freep)
		char *uri = make_uri(s, 0, text_of(export, "name"));

		json_object_set_new(export, "uri", json_string(uri));
	}
	if (s->cmd.json)
		print_json(s, name, lines, pid);
	else
		print_text(s, lines);
	fflush(stdout); /* it may be a pipe that someone waits on */
	json_decref(lines);
	json_decref(s->exports);
	json_decref(s->images);
	s->exports = s->images = NULL;
}
