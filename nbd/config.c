/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/cache.h"
#include "formats/overlay/overlay.h"
#include "formats/place.h"
#include "formats/streams/kept.h"
#include "formats/streams/pass.h"
#include "iouring/sources/disk-cache.h"
#include "iouring/sources/nbd.h"
#include "iouring/sources/remote-options.h"
#include "iouring/sources/url.h"
#include "nbd/config.h"
#include "nbd/config-exports.h"
#include "nbd/export-name.h"

/* A passphrase; nobody types more. */
#define KEY_BYTES_MAX	65536U
#define CACHE_BYTES_MAX (1ULL << 40)
#define FILL_BYTES_MIN	(64ULL << 10)
#define CONNECTIONS_MAX 1000000U

const char config_help[] =
	"image=FILE|URL   the image to serve (the word \"image=\" may be left out)\n"
	"export=NAME=FILE another image, as export NAME (may repeat)\n"
	"format=NAME      its format; without it, it is recognised by content\n"
	"member=NAME      of a container (a tar archive, an OVA): which of its disks\n"
	"size=SIZE        of the raw disk in a compressed file, which is served before\n"
	"                 all of it has been decoded once; of a docker image's disk\n"
	"snapshot=NAME    serve this snapshot of it, by id or name\n"
	"key=FILE         passphrase of an encrypted image\n"
	"allow=WHAT       a folder, or a prefix such as json:, to which names\n"
	"                 inside images may lead; a URL, with all beneath it; or\n"
	"                 \"guessed\" (may repeat)\n"
	"force=parent     take a parent whose ids do not match its child's\n"
	"force=share      read an image that another process may be writing\n"
	"credentials=FILE who we are to web servers, with a line \"[URL] bearer TOKEN\"\n"
	"                 or \"[URL] basic USER:PASSWORD\" for each\n"
	"ca=FILE          certificates (PEM) that web servers are known by [the system's]\n"
	"proxy=URL|none   by which web servers are reached [as http_proxy says]\n"
	"remote-timeout=SECONDS  how long a read from another server is tried for [30]\n"
	"cache-dir=DIR    where what was read of URLs, and indexes of compressed\n"
	"                 files, are kept [nowhere]\n"
	"cache-size=SIZE  what copies may take of the disk [10G]\n"
	"fill=off|on|idle|RATE   fetch all of what is open into cache-dir=: while\n"
	"                 nobody waits, while nobody has waited for a second, or\n"
	"                 RATE bytes a second [off]\n"
	"trace=FILE|URL   what is fetched first, see platter trace [IMAGE.trace]\n"
	"cache=SIZE       memory for tables, decoded clusters and decoding [64M]\n"
	"io=auto|uring|sync  how files are read [auto]\n"
	"direct=true      bypass the page cache (O_DIRECT) [false]\n"
	"diff=holes|apply what has not changed in an export \"@A..B\": a hole, or a\n"
	"                 hole that reads as zeroes [holes]\n"
	"overlay=FILE|temp   take writes into this qcow2 file, made if need be, or\n"
	"                 into one that is gone at the end\n"
	"overlay-scope=export|connection  who shares a temporary one [export]\n"
	"overlays=DIR     take writes to export \"+NAME\" into DIR/NAME.qcow2\n"
	"overlays-create=first-write|explicit  when a new one is made: with the\n"
	"                 first write of a client, or by platter overlay create\n"
	"                 alone [first-write]\n"
	"max-connections=N   clients at a time [as many as there are descriptors]\n"
	"max-connections-per-address=N   of one TCP address [no limit]\n"
	"overlay-max=SIZE what an overlay may take\n"
	"overlay-free=SIZE  what its file system keeps free\n"
	"detect=zeroes,base  written zeroes, or what the image has already, take no\n"
	"                 room\n"
	"control=PATH     a unix socket for platter overlay\n"
	"store=DIR        a folder of images, served by id or name\n"
	"store=NAME=DIR   the same, and more of them: the first is the default\n"
	"glance=ADDR:PORT|unix:PATH  the store's HTTP API (OpenStack Image)\n"
	"pithos=DIR       where pithos://ACCOUNT/CONTAINER/OBJECT lie\n"
	"import-hosts=NAME,..., import-ports=PORT,..., import-nets=ADDR/BITS,...\n"
	"                 web servers to import from [any, 80 and 443, public ones]\n"
	"import-min-rate=BYTES[:SECONDS]  what a download brings a second at least\n"
	"                 [16K, on the average of 60 seconds]\n"
	"import-properties=PREFIX,...  which properties glance-download copies\n"
	"                 [hw_,trait:,os_distro,os_secure_boot,os_type]\n"
	"show-locations=true, location-dirs=DIR:...  locations of images, and where\n"
	"                 files may be registered in place\n"
	"signature-certificates=DIR  UUID.pem for images that are signed\n"
	"direct-url=nbd://HOST:PORT/  in front of ids, shown as direct_url\n"
	"glance-timeout=SECONDS  for clients of HTTP that are silent (60)\n"
	"glance-proxies=ADDR[/BITS]|unix,...  whose X-Forwarded-For is believed\n"
	"glance-per-address=N  connections and requests of one address at a time\n"
	"glance-hosts=NAME,...  what Host may be, with auth=none on loopback\n"
	"cors-origins=http[s]://NAME[:PORT],...  whose pages may use it, as Horizon's\n"
	"health-disable=FILE  while it is there, /healthcheck says so\n"
	"limits=FILE|keystone  how much each project may have\n"
	"min-disk=asked   leave min_disk as the client gave it [inspected]\n"
	"glance-cert=FILE, glance-key=FILE  TLS for it (PEM)\n"
	"access-log=FILE  a line for each request of the API\n"
	"auth=none|tokens:FILE|keystone:URL  who may use it [none]\n"
	"keystone-user=NAME, keystone-project=NAME, keystone-password=FILE  as whom\n"
	"                 Keystone is asked\n"
	"keystone-service-roles=NAME,...  who may use expired tokens, by another in\n"
	"                 X-Service-Token [service]";

void config_init(struct config *c)
{
	*c = (struct config){ .cache_bytes = CACHE_BYTES_DEFAULT,
			      .remote_seconds = REMOTE_SECONDS_DEFAULT,
			      .cache_dir_bytes = DISK_CACHE_BYTES_DEFAULT };
}

static void free_key(struct config *c)
{
	if (c->key)
		explicit_bzero(c->key, c->key_bytes);
	free(TAKE_PTR(c->key));
	c->key_bytes = 0;
}

void config_done(struct config *c)
{
	size_t i;

	free_key(c);
	free(c->image);
	config_exports_done(c);
	free(c->format);
	free(c->member);
	free(c->snapshot);
	free(c->credentials);
	free(c->cache_dir);
	free(c->trace);
	free(c->ca);
	free(c->proxy);
	free(c->overlay);
	free(c->overlays);
	free(c->control);
	glance_config_done(&c->glance);
	allow_done(&c->allow);
	for (i = 0; i < c->n_allow_values; i++)
		free(c->allow_values[i]);
	free(c->allow_values);
	config_init(c);
}

static int set_string(char **field, const char *value, struct error *err)
{
	char *copy = strdup(value);

	if (!copy)
		return error_set(err, -ENOMEM, 0, "out of memory");
	free(*field);
	*field = copy;
	return 0;
}

static int set_image(struct config *c, const char *value, struct error *err)
{
	char *path;
	int r;

	if (c->image)
		return error_set(err, -EINVAL, 0,
				 "image: one is served, two were given: %s and "
				 "%s",
				 c->image, value);
	if (!*value)
		return error_set(err, -EINVAL, 0, "image: the name is empty");
	r = config_image_path(value, &path, err);
	if (r >= 0)
		c->image = path;
	return r;
}

static int read_key(int fd, struct config *c, struct error *err)
{
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, 0, "is not a regular file");
	if (st.st_size > KEY_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "has %lld bytes, the limit is %u",
				 (long long)st.st_size, KEY_BYTES_MAX);
	c->key = malloc(KEY_BYTES_MAX);
	if (!c->key)
		return error_set(err, -ENOMEM, 0, "out of memory");
	n = read(fd, c->key, KEY_BYTES_MAX);
	if (n < 0)
		return error_set(err, -EINVAL, 0, "%s", errno_text(errno));
	c->key_bytes = (size_t)n;
	return 0;
}

static int set_key(struct config *c, const char *value, struct error *err)
{
	CLEANUP(closep)
	int fd = open(value, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int r = config_check_path(value, err);

	if (r < 0)
		return r;
	free_key(c);
	r = fd < 0 ? error_set(err, -EINVAL, 0, "%s", errno_text(errno))
		   : read_key(fd, c, err);
	if (r < 0)
		error_prefix(err, "key: %s", value);
	return r;
}

static int set_allow(struct config *c, const char *value, struct error *err)
{
	char **values = reallocarray(c->allow_values, c->n_allow_values + 1,
				     sizeof(*values));
	size_t len = strlen(value);
	char *copy = NULL;

	if (!values)
		return error_set(err, -ENOMEM, 0, "out of memory");
	c->allow_values = values;
	if (!strcmp(value, "guessed") || url_is_web(value) ||
	    nbd_source_is_uri(value) || (len && value[len - 1] == ':'))
		copy = strdup(value);
	else if (config_absolute_path(value, &copy, err) < 0)
		return err->code;
	if (!copy)
		return error_set(err, -ENOMEM, 0, "out of memory");
	values[c->n_allow_values++] = copy;
	return allow_add(&c->allow, copy, err);
}

bool config_size(const char *value, uint64_t *ret)
{
	static const char suffixes[] = "KMGT";
	unsigned long long n;
	unsigned int shift = 0;
	const char *s;
	char *end;

	errno = 0;
	n = strtoull(value, &end, 10);
	s = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
	if (s) {
		shift = 10 * (unsigned int)(s - suffixes + 1);
		end++;
	}
	if (!isdigit((unsigned char)*value) || *end)
		return false;
	*ret = errno || n > UINT64_MAX >> shift ? UINT64_MAX : n << shift;
	return true;
}

static int read_memory(const char *name, const char *value, uint64_t *ret,
		       struct error *err)
{
	uint64_t n;

	if (!config_size(value, &n))
		return error_set(err, -EINVAL, 0,
				 "%s: \"%s\" is not a size such as 64M", name,
				 value);
	if (n > CACHE_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "%s: %s is over the limit of 1T", name, value);
	*ret = n;
	return 0;
}

static int set_cache(struct config *c, const char *value, struct error *err)
{
	return read_memory("cache", value, &c->cache_bytes, err);
}

static int set_spare(struct config *c, const char *value, struct error *err)
{
	uint64_t bytes;

	c->spare_given = true;
	return read_memory("spare", value, &bytes, err);
}

/* "cid" is what a parent's id is called in VMDK. */
static int set_force(struct config *c, const char *value, struct error *err)
{
	if (!strcmp(value, "share"))
		c->force_share = true;
	else if (!strcmp(value, "parent") || !strcmp(value, "cid"))
		c->force_parent = true;
	else
		return error_set(err, -EINVAL, 0,
				 "force: \"%s\" is none of parent, cid, share",
				 value);
	return 0;
}

static int set_diff(struct config *c, const char *value, struct error *err)
{
	if (strcmp(value, "holes") && strcmp(value, "apply"))
		return error_set(err, -EINVAL, 0,
				 "diff: \"%s\" is neither holes nor apply",
				 value);
	c->diff_apply = !strcmp(value, "apply");
	return 0;
}

static int set_io(struct config *c, const char *value, struct error *err)
{
	if (!strcmp(value, "auto"))
		c->io = ENGINE_AUTO;
	else if (!strcmp(value, "uring"))
		c->io = ENGINE_URING;
	else if (!strcmp(value, "sync"))
		c->io = ENGINE_SYNC;
	else
		return error_set(err, -EINVAL, 0,
				 "io: \"%s\" is none of auto, uring, sync",
				 value);
	return 0;
}

static int set_direct(struct config *c, const char *value, struct error *err)
{
	static const char *const yes[] = { "true", "yes", "on", "1" };
	static const char *const no[] = { "false", "no", "off", "0" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcasecmp(value, yes[i]) || !strcasecmp(value, no[i])) {
			c->direct = !strcasecmp(value, yes[i]);
			return 0;
		}
	}
	return error_set(err, -EINVAL, 0,
			 "direct: \"%s\" is neither true nor false", value);
}

static int set_format(struct config *c, const char *value, struct error *err)
{
	if (!format_by_name(value))
		return error_set(err, -EINVAL, 0,
				 "format: \"%s\" is not supported", value);
	return set_string(&c->format, value, err);
}

static int set_member(struct config *c, const char *value, struct error *err)
{
	return set_string(&c->member, value, err);
}

static int set_said_bytes(struct config *c, const char *value,
			  struct error *err)
{
	if (!config_size(value, &c->said_bytes) || !c->said_bytes ||
	    c->said_bytes >= STREAM_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "size: \"%s\" is not a size below 64T", value);
	return 0;
}

static int set_snapshot(struct config *c, const char *value, struct error *err)
{
	return set_string(&c->snapshot, value, err);
}

/* 0 is no limit. */
static int read_count(const char *name, const char *value, unsigned int *ret,
		      struct error *err)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (!isdigit((unsigned char)*value) || *end || errno ||
	    n > CONNECTIONS_MAX)
		return error_set(err, -EINVAL, 0,
				 "%s: \"%s\" is not a number from 0 to %u",
				 name, value, CONNECTIONS_MAX);
	*ret = (unsigned int)n;
	return 0;
}

/* A file that is there, by its absolute path. */
static int set_file(const char *key, const char *value, char **field,
		    struct error *err)
{
	char *path;
	int r = access(value, R_OK) < 0
			? error_set(err, -EINVAL, 0, "%s: %s: %s", key, value,
				    errno_text(errno))
			: config_absolute_path(value, &path, err);

	if (r < 0)
		return r;
	free(*field);
	*field = path;
	return 0;
}

static int set_credentials(struct config *c, const char *value,
			   struct error *err)
{
	return set_file("credentials", value, &c->credentials, err);
}

static int set_ca(struct config *c, const char *value, struct error *err)
{
	return set_file("ca", value, &c->ca, err);
}

static int set_proxy(struct config *c, const char *value, struct error *err)
{
	return set_string(&c->proxy, value, err);
}

static int set_remote_timeout(struct config *c, const char *value,
			      struct error *err)
{
	unsigned int n;
	int r = read_count("remote-timeout", value, &n, err);

	if (r < 0)
		return r;
	if (!n || n > REMOTE_SECONDS_MAX)
		return error_set(err, -EINVAL, 0,
				 "remote-timeout: %u is not from 1 to %u "
				 "seconds",
				 n, REMOTE_SECONDS_MAX);
	c->remote_seconds = n;
	return 0;
}

static int set_cache_dir(struct config *c, const char *value, struct error *err)
{
	char *path;
	int r = *value ? config_absolute_path(value, &path, err)
		       : error_set(err, -EINVAL, 0,
				   "cache-dir: the path is empty");

	if (r < 0)
		return r;
	free(c->cache_dir);
	c->cache_dir = path;
	return 0;
}

static int set_cache_size(struct config *c, const char *value,
			  struct error *err)
{
	if (!config_size(value, &c->cache_dir_bytes) ||
	    c->cache_dir_bytes < DISK_CACHE_BYTES_MIN)
		return error_set(err, -EINVAL, 0,
				 "cache-size: \"%s\" is not a size of at least "
				 "64M",
				 value);
	return 0;
}

static int set_fill(struct config *c, const char *value, struct error *err)
{
	static const char *const words[] = { "off", "on", "idle" };
	size_t i;

	c->fill_bytes_sec = 0;
	for (i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(value, words[i])) {
			c->fill = (enum disk_cache_fill)i;
			return 0;
		}
	c->fill = DISK_CACHE_FILL_ON;
	if (!config_size(value, &c->fill_bytes_sec) ||
	    c->fill_bytes_sec < FILL_BYTES_MIN ||
	    c->fill_bytes_sec > CACHE_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "fill: \"%s\" is none of off, on, idle, nor "
				 "from 64K to 1T bytes a second",
				 value);
	return 0;
}

static int set_trace(struct config *c, const char *value, struct error *err)
{
	char *path;
	int r = *value ? config_image_path(value, &path, err)
		       : error_set(err, -EINVAL, 0, "trace: the name is empty");

	if (r < 0)
		return r;
	free(c->trace);
	c->trace = path;
	return 0;
}

static int set_overlay(struct config *c, const char *value, struct error *err)
{
	char *path;
	int r;

	if (c->overlay || c->overlay_temp)
		return error_set(err, -EINVAL, 0, "overlay: there is one only");
	if (!*value)
		return error_set(err, -EINVAL, 0, "overlay: the name is empty");
	if (!strcmp(value, "temp")) {
		c->overlay_temp = true;
		return 0;
	}
	r = config_absolute_path(value, &path, err);
	if (r >= 0)
		c->overlay = path;
	return r;
}

static int set_overlay_scope(struct config *c, const char *value,
			     struct error *err)
{
	if (strcmp(value, "export") && strcmp(value, "connection"))
		return error_set(err, -EINVAL, 0,
				 "overlay-scope: \"%s\" is neither export nor "
				 "connection",
				 value);
	c->overlay_per_connection = !strcmp(value, "connection");
	return 0;
}

static int set_overlays(struct config *c, const char *value, struct error *err)
{
	struct stat st;
	char *path;
	int r;

	if (stat(value, &st) < 0 || !S_ISDIR(st.st_mode))
		return error_set(err, -EINVAL, 0,
				 "overlays: %s is not a folder", value);
	r = config_absolute_path(value, &path, err);
	if (r < 0)
		return r;
	free(c->overlays);
	c->overlays = path;
	return 0;
}

static int set_overlays_create(struct config *c, const char *value,
			       struct error *err)
{
	if (strcmp(value, "first-write") && strcmp(value, "explicit"))
		return error_set(err, -EINVAL, 0,
				 "overlays-create: \"%s\" is neither "
				 "first-write nor explicit",
				 value);
	c->overlays_explicit = !strcmp(value, "explicit");
	return 0;
}

static int set_control(struct config *c, const char *value, struct error *err)
{
	char *path;
	int r;

	if (!*value)
		return error_set(err, -EINVAL, 0, "control: the path is empty");
	r = config_absolute_path(value, &path, err);
	if (r < 0)
		return r;
	free(c->control);
	c->control = path;
	return 0;
}

static int set_size(const char *key, const char *value, uint64_t *field,
		    struct error *err)
{
	return config_size(value, field)
		       ? 0
		       : error_set(err, -EINVAL, 0,
				   "%s: \"%s\" is not a size such as 10G", key,
				   value);
}

static int set_overlay_max(struct config *c, const char *value,
			   struct error *err)
{
	return set_size("overlay-max", value, &c->overlay_bytes_max, err);
}

static int set_overlay_free(struct config *c, const char *value,
			    struct error *err)
{
	return set_size("overlay-free", value, &c->overlay_free_min, err);
}

static int set_max_connections(struct config *c, const char *value,
			       struct error *err)
{
	return read_count("max-connections", value, &c->connections_max, err);
}

static int set_max_per_address(struct config *c, const char *value,
			       struct error *err)
{
	return read_count("max-connections-per-address", value,
			  &c->address_connections_max, err);
}

static int set_detect(struct config *c, const char *value, struct error *err)
{
	static const struct {
		const char *word;
		unsigned int bit;
	} words[] = { { "zeroes", OVERLAY_DETECT_ZEROES },
		      { "base", OVERLAY_DETECT_BASE } };
	unsigned int detect = 0;
	const char *p = value;
	size_t i, len;

	while (*p) {
		len = strcspn(p, ",");
		for (i = 0; i < ARRAY_SIZE(words); i++)
			if (strlen(words[i].word) == len &&
			    !strncmp(words[i].word, p, len))
				break;
		if (i == ARRAY_SIZE(words))
			return error_set(err, -EINVAL, 0,
					 "detect: \"%s\" is not of zeroes, "
					 "base",
					 value);
		detect |= words[i].bit;
		p += len;
		p += *p == ',';
	}
	c->detect = detect;
	return 0;
}

static const struct {
	const char *key;
	int (*set)(struct config *c, const char *value, struct error *err);
} params[] = {
	{ "image", set_image },
	{ "export", config_add_export },
	{ "format", set_format },
	{ "member", set_member },
	{ "size", set_said_bytes },
	{ "snapshot", set_snapshot },
	{ "key", set_key },
	{ "allow", set_allow },
	{ "credentials", set_credentials },
	{ "ca", set_ca },
	{ "proxy", set_proxy },
	{ "remote-timeout", set_remote_timeout },
	{ "cache-dir", set_cache_dir },
	{ "cache-size", set_cache_size },
	{ "fill", set_fill },
	{ "trace", set_trace },
	{ "cache", set_cache },
	{ "spare", set_spare },
	{ "io", set_io },
	{ "direct", set_direct },
	{ "force", set_force },
	{ "diff", set_diff },
	{ "overlay", set_overlay },
	{ "overlay-scope", set_overlay_scope },
	{ "overlays", set_overlays },
	{ "overlays-create", set_overlays_create },
	{ "overlay-max", set_overlay_max },
	{ "overlay-free", set_overlay_free },
	{ "detect", set_detect },
	{ "control", set_control },
	{ "max-connections", set_max_connections },
	{ "max-connections-per-address", set_max_per_address },
};

const char *config_key(size_t i)
{
	return i < ARRAY_SIZE(params)
		       ? params[i].key
		       : glance_config_key(i - ARRAY_SIZE(params));
}

int config_set(struct config *c, const char *key, const char *value,
	       struct error *err)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(params); i++)
		if (!strcmp(params[i].key, key))
			return params[i].set(c, value, err);
	return glance_config_set(&c->glance, key, value, err);
}

void config_open_options(const struct config *c, struct open_options *ret)
{
	*ret = (struct open_options){
		.format = c->format,
		.member = c->member,
		.said_bytes = c->said_bytes,
		.snapshot = c->snapshot,
		.key = c->key,
		.key_bytes = c->key_bytes,
		.allow = c->allow,
		.direct = c->direct,
		.force_parent = c->force_parent,
		.lock = !c->force_share,
		.share = c->force_share,
	};
}

int config_apply(const struct config *c, void (*say)(const char *line),
		 struct error *err)
{
	int r;

	cache_configure(c->cache_bytes);
	remote_configure(
		&(struct remote_options){ .credentials = c->credentials,
					  .ca = c->ca,
					  .proxy = c->proxy,
					  .seconds = c->remote_seconds,
					  .say = say });
	if (c->spare_given && say)
		say("spare= does nothing any more: decoded clusters lie in the "
		    "memory of cache=");
	engine_configure(c->io, say);
	streams_configure(say);
	passes_start();
	if (c->cache_dir) {
		r = kept_configure(c->cache_dir, err);
		if (r >= 0)
			r = disk_cache_configure(c->cache_dir,
						 c->cache_dir_bytes, say, err);
		if (r < 0)
			return r;
		disk_cache_fill(c->fill, c->fill_bytes_sec);
	}
	if (c->io != ENGINE_URING)
		return 0;
	r = engine_probe();
	if (r < 0)
		return error_set(err, r, 0,
				 "io_uring is not available (%s); %s does "
				 "without",
				 errno_text(-r),
				 AS_GIVEN("io=auto", "--io auto"));
	return 0;
}

int config_check(const struct config *c, struct error *err)
{
	const struct {
		bool wrong;
		const char *why;
	} rules[] = {
		{ !c->image && !c->n_exports && !c->glance.store,
		  AS_GIVEN(
			  "no image was given: a FILE, export=NAME=FILE or store=DIR",
			  "no image was given: a FILE, --export NAME=FILE or --store DIR") },
		{ c->overlay && !c->image,
		  AS_GIVEN(
			  "overlay=FILE is of one image, by image= or as the only operand; overlays=DIR is for several",
			  "--overlay FILE is of one image, the only operand; --overlays DIR is for several") },
		{ c->overlay_temp && !c->image && !c->n_exports,
		  AS_GIVEN(
			  "overlay=temp needs an image: a FILE or export=NAME=FILE",
			  "--overlay temp needs an image: a FILE or --export NAME=FILE") },
		{ c->overlays && !c->image && !c->n_exports && !c->glance.store,
		  AS_GIVEN(
			  "overlays= needs an image: a FILE, export=NAME=FILE or store=DIR",
			  "--overlays needs an image: a FILE, --export NAME=FILE or --store DIR") },
		{ c->member && !c->image,
		  AS_GIVEN(
			  "member= is of one image; of export NAME it is NAME/MEMBER",
			  "--member is of one image; of export NAME it is NAME/MEMBER") },
		{ c->said_bytes && !c->image,
		  AS_GIVEN("size= is of one image", "--size is of one image") },
		{ c->snapshot && !c->image,
		  AS_GIVEN(
			  "snapshot= is of one image; of export NAME it is NAME@SNAPSHOT",
			  "--snapshot is of one image; of export NAME it is NAME@SNAPSHOT") },
		{ c->overlay_per_connection && !c->overlay_temp,
		  AS_GIVEN(
			  "overlay-scope=connection is for overlay=temp",
			  "--overlay-scope connection is for --overlay temp") },
		{ c->fill != DISK_CACHE_FILL_OFF && !c->cache_dir,
		  AS_GIVEN("fill= needs a folder: cache-dir=DIR",
			   "--fill needs a folder: --cache-dir DIR") },
		{ c->trace && !(c->image && c->cache_dir),
		  AS_GIVEN(
			  "trace= is of one image, and needs a folder: cache-dir=DIR",
			  "--trace is of one image, and needs a folder: --cache-dir DIR") },
		{ c->glance.listen && !c->glance.store,
		  AS_GIVEN("glance= needs a store: store=DIR",
			   "--glance needs a store: --store DIR") },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rules); i++)
		if (rules[i].wrong)
			return error_set(err, -EINVAL, 0, "%s", rules[i].why);
	return 0;
}
