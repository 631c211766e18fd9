/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "iouring/sources/curl-lib.h"
#include "glance/fetch.h"
#include "iouring/net.h"
#include "iouring/util.h"

#define CONNECT_SEC	  30L
/* Of what is said to a refusal or beside a redirect; then no one listens. */
#define REFUSAL_BYTES_MAX (1U << 20)

struct fetch_rules {
	char *hosts; /* what the names point into; NULL: any */
	const char *names[FETCH_LIST_MAX];
	size_t n_names;
	unsigned int ports[FETCH_LIST_MAX];
	size_t n_ports;
	struct net nets[FETCH_LIST_MAX];
	size_t n_nets;
	uint64_t rate; /* bytes a second */
	unsigned int rate_sec; /* on the average of so many */
};

/* ---- addresses ---- */

static bool may_reach(const struct fetch_rules *r, const uint8_t addr[16])
{
	size_t i;

	for (i = 0; i < r->n_nets; i++)
		if (net_has(&r->nets[i], addr))
			return true;
	return net_is_public(addr);
}

bool fetch_address_ok(const struct fetch_rules *r, const char *text)
{
	struct net n;

	return net_parse_address(text, &n) && may_reach(r, n.addr);
}

static bool may_connect(const struct fetch_rules *r, const struct sockaddr *sa)
{
	struct net n;

	return net_of_sockaddr(sa, &n) && may_reach(r, n.addr);
}

/* ---- rules ---- */

/* Calls @add for each part of @list: by commas, or spaces as Glance's lists have. */
static int each_part(const char *what, char *list,
		     bool (*add)(struct fetch_rules *r, const char *part),
		     struct fetch_rules *r, struct error *err)
{
	size_t n = 0;
	char *part, *rest = NULL;

	for (part = strtok_r(list, ", \t", &rest); part;
	     part = strtok_r(NULL, ", \t", &rest)) {
		if (n++ == FETCH_LIST_MAX)
			return error_set(err, -EINVAL, 0, "%s: over %d entries",
					 what, FETCH_LIST_MAX);
		if (!add(r, part))
			return error_set(err, -EINVAL, 0,
					 "%s: \"%.64s\" cannot be understood",
					 what, part);
	}
	return 0;
}

static bool add_name(struct fetch_rules *r, const char *part)
{
	r->names[r->n_names++] = part;
	return true;
}

static bool add_port(struct fetch_rules *r, const char *part)
{
	unsigned long port;
	char *end;

	port = strtoul(part, &end, 10);
	if (*part < '0' || *part > '9' || *end || !port || port > 65535)
		return false;
	r->ports[r->n_ports++] = (unsigned int)port;
	return true;
}

static bool add_net(struct fetch_rules *r, const char *part)
{
	return net_parse(part, &r->nets[r->n_nets++]);
}

static int add_list(struct fetch_rules *r, const char *what, const char *list,
		    bool (*add)(struct fetch_rules *r, const char *part),
		    struct error *err)
{
	CLEANUP(freep) char *copy = list ? strdup(list) : NULL;

	if (!list)
		return 0;
	return copy ? each_part(what, copy, add, r, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
}

int fetch_rules_new(const char *hosts, const char *ports, const char *nets,
		    struct fetch_rules **ret, struct error *err)
{
	struct fetch_rules *r = calloc(1, sizeof(*r));
	int code = 0;

	if (!r)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r->rate = FETCH_RATE;
	r->rate_sec = FETCH_RATE_SEC;
	if (hosts) {
		r->hosts = strdup(hosts);
		code = r->hosts ? each_part("import-hosts", r->hosts, add_name,
					    r, err)
				: error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (code >= 0)
		code = add_list(r, "import-ports", ports ? ports : "80,443",
				add_port, err);
	if (code >= 0)
		code = add_list(r, "import-nets", nets, add_net, err);
	if (code < 0) {
		fetch_rules_free(r);
		return code;
	}
	*ret = r;
	return 0;
}

int fetch_rules_set_rate(struct fetch_rules *r, const char *text,
			 struct error *err)
{
	unsigned long long rate = 0;
	unsigned long sec = FETCH_RATE_SEC;
	char *end = (char *)text;

	if (*text >= '0' && *text <= '9')
		rate = strtoull(text, &end, 10);
	if (rate > UINT32_MAX)
		rate = 0;
	if (*end == 'K' || *end == 'M')
		rate <<= *end++ == 'K' ? 10 : 20;
	if (*end == ':') {
		sec = end[1] >= '0' && end[1] <= '9'
			      ? strtoul(end + 1, &end, 10)
			      : 0;
	}
	if (!rate || *end || !sec || sec > FETCH_RATE_SEC_MAX)
		return error_set(err, -EINVAL, 0,
				 "import-min-rate: \"%.32s\" is not "
				 "BYTES[:SECONDS], at least 1 byte a second on "
				 "the average of 1 to %u seconds",
				 text, FETCH_RATE_SEC_MAX);
	r->rate = rate;
	r->rate_sec = (unsigned int)sec;
	return 0;
}

void fetch_rules_free(struct fetch_rules *r)
{
	if (!r)
		return;
	free(r->hosts);
	free(r);
}

/* ---- URLs ---- */

static bool host_ok(const struct fetch_rules *r, const char *host)
{
	size_t i;

	for (i = 0; i < r->n_names; i++)
		if (!strcasecmp(r->names[i], host))
			return true;
	return !r->hosts;
}

static bool port_ok(const struct fetch_rules *r, const char *port)
{
	unsigned long n = strtoul(port, NULL, 10);
	size_t i;

	for (i = 0; i < r->n_ports; i++)
		if (r->ports[i] == n)
			return true;
	return false;
}

/* libcurl forgives other numbers of slashes, and takes a name of the path. */
static bool has_authority(const char *url)
{
	const char *colon = strchr(url, ':');

	return colon && !strncmp(colon, "://", 3) && colon[3] &&
	       colon[3] != '/';
}

static int check_parts(const struct fetch_rules *r, const struct curl_lib *curl,
		       CURLU *u, const char *url, struct error *err)
{
	char *scheme = NULL, *host = NULL, *port = NULL;
	int code = 0;

	if (!has_authority(url) ||
	    curl->url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
	    curl->url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    curl->url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
	    curl->url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) !=
		    CURLUE_OK)
		code = error_set(err, -EINVAL, 0, "not an absolute URL");
	else if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
		code = error_set(err, -EINVAL, 0, "its scheme is %.32s",
				 scheme);
	else if (!host_ok(r, host))
		code = error_set(err, -EINVAL, 0,
				 "host %.128s is not in import-hosts", host);
	else if (!port_ok(r, port))
		code = error_set(err, -EINVAL, 0,
				 "port %s is not in import-ports", port);
	curl->free(scheme);
	curl->free(host);
	curl->free(port);
	return code;
}

int fetch_check(const struct fetch_rules *r, const char *url, struct error *err)
{
	const struct curl_lib *curl = curl_lib_load();
	CURLU *u;
	int code;

	if (!curl)
		return error_set(err, -ENOTSUP, 0, "libcurl is not installed");
	u = curl->url();
	if (!u)
		return error_set(err, -ENOMEM, 0, "out of memory");
	code = check_parts(r, curl, u, url, err);
	curl->url_cleanup(u);
	return code;
}

/* ---- transfers ---- */

struct transfer {
	const struct fetch_rules *rules;
	const struct curl_lib *curl;
	const struct fetch_sink *to;
	const char *header; /* of the request; NULL: none, and a client's URL */
	CURL *handle;
	struct error *err;
	struct error why; /* what err may point to */
	bool failed; /* the sink has, @err says how */
	bool stopped;
	bool slow;
	uint64_t since_nsec; /* of the seconds that are looked at */
	uint64_t since_bytes; /* what had come before */
	bool forbidden; /* an address was */
	uint64_t refusal_bytes; /* that were dropped */
	bool ask; /* for the size alone */
	uint64_t size; /* what was told */
	bool part; /* not all of it: */
	uint64_t off, left; /* what is still to come of it */
	uint64_t skip; /* to be dropped first */
};

static curl_socket_t open_socket(void *opaque, curlsocktype purpose,
				 struct curl_sockaddr *to)
{
	struct transfer *t = opaque;

	if (!t->header && !may_connect(t->rules, &to->addr)) {
		t->forbidden = true;
		return CURL_SOCKET_BAD;
	}
	return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

static long status_of(const struct transfer *t)
{
	long status = 0;

	t->curl->easy_getinfo(t->handle, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

static int hand_on(struct transfer *t, const char *data, size_t len)
{
	int r = t->to->add(t->to->opaque, data, len, t->err);

	if (r < 0)
		t->failed = true;
	return r;
}

/* Of @len bytes what belongs to the part; a server may send all. */
static size_t take_part(struct transfer *t, const char *data, size_t len,
			bool whole)
{
	uint64_t drop = whole ? min_u64(t->skip, len) : 0;
	size_t n = (size_t)min_u64(t->left, len - drop);

	t->skip -= drop;
	if (n && hand_on(t, data + drop, n) < 0)
		return 0;
	t->left -= n;
	return t->left ? len : 0; /* no more is wanted */
}

static size_t take(char *data, size_t size, size_t n, void *opaque)
{
	struct transfer *t = opaque;
	long status = status_of(t);

	if (t->part && (status == 200 || status == 206))
		return take_part(t, data, size * n, status == 200);
	if (status != 200 || !t->to) {
		t->refusal_bytes += size * n;
		return t->refusal_bytes > REFUSAL_BYTES_MAX ? 0 : size * n;
	}
	return hand_on(t, data, size * n) < 0 ? 0 : size * n;
}

/* Are these seconds over, and was it too little? */
static bool is_slow(struct transfer *t, uint64_t bytes)
{
	uint64_t now = now_nsec();
	uint64_t sec = (now - t->since_nsec) / 1000000000U;
	bool slow = (bytes - t->since_bytes) / (sec ? sec : 1) < t->rules->rate;

	if (sec < t->rules->rate_sec)
		return false;
	t->since_nsec = now;
	t->since_bytes = bytes;
	return slow;
}

static int progress(void *opaque, curl_off_t down_total, curl_off_t down,
		    curl_off_t up_total, curl_off_t up)
{
	struct transfer *t = opaque;

	t->stopped = t->to && t->to->stop(t->to->opaque);
	t->slow = is_slow(t, down > 0 ? (uint64_t)down : 0);
	return t->stopped || t->slow;
}

static void set_up_kind(struct transfer *t)
{
	char range[48];

	if (t->ask) {
		t->curl->easy_setopt(t->handle, CURLOPT_NOBODY, 1L);
		t->curl->easy_setopt(t->handle, CURLOPT_TIMEOUT,
				     (long)FETCH_ASK_SEC);
	}
	if (t->part) {
		t->skip = t->off;
		snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, t->off,
			 t->off + t->left - 1);
		t->curl->easy_setopt(t->handle, CURLOPT_RANGE, range);
	}
}

static void set_up(struct transfer *t, const char *url)
{
	const struct curl_lib *curl = t->curl;
	CURL *c = t->handle;

	curl->easy_setopt(c, CURLOPT_URL, url);
	curl->easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl->easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl->easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl->easy_setopt(c, CURLOPT_PROXY, ""); /* nor by the environment */
	curl->easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_SEC);
	curl->easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl->easy_setopt(c, CURLOPT_OPENSOCKETDATA, t);
	curl->easy_setopt(c, CURLOPT_WRITEFUNCTION, take);
	curl->easy_setopt(c, CURLOPT_WRITEDATA, t);
	curl->easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl->easy_setopt(c, CURLOPT_XFERINFOFUNCTION, progress);
	curl->easy_setopt(c, CURLOPT_XFERINFODATA, t);
}

/* The server has said yes. */
static int judge_good(struct transfer *t, struct error *err)
{
	curl_off_t bytes = -1;

	if (t->part && t->left)
		return error_set(err, -EIO, 0, "it ends early");
	if (!t->ask)
		return 0;
	t->curl->easy_getinfo(t->handle, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
			      &bytes);
	if (bytes < 0)
		return error_set(err, -EIO, 0, "the server tells no size");
	t->size = (uint64_t)bytes;
	return 0;
}

/* 1: redirected, to *ret_next. */
static int judge(struct transfer *t, CURLcode code, char **ret_next,
		 struct error *err)
{
	const char *next = NULL;
	long status = status_of(t);

	if (t->failed)
		return err->code;
	if (t->stopped)
		return error_set(err, -ECANCELED, 0, "stopped");
	if (t->slow)
		return error_set(err, -ETIMEDOUT, 0,
				 "slower than %" PRIu64 " bytes a second on "
				 "the average of %u seconds (import-min-rate)",
				 t->rules->rate, t->rules->rate_sec);
	if (code != CURLE_OK && t->forbidden)
		return error_set(err, -EPERM, 0,
				 "its address is not public, and not in "
				 "import-nets");
	if (t->part && !t->left)
		return 0; /* ended by us */
	if (status == 404 || status == 410) /* its page was not taken */
		return error_set(err, -ENOENT, 0, "the server answers %ld",
				 status);
	if (code != CURLE_OK && t->refusal_bytes <= REFUSAL_BYTES_MAX)
		return error_set(err, -EIO, 0, "%s",
				 t->curl->easy_strerror(code));
	if (status == 200 || (t->part && status == 206))
		return judge_good(t, err);
	t->curl->easy_getinfo(t->handle, CURLINFO_REDIRECT_URL, &next);
	if (!next)
		return error_set(err, -EIO, 0, "the server answers %ld",
				 status);
	*ret_next = strdup(next);
	return *ret_next ? 1 : error_set(err, -ENOMEM, 0, "out of memory");
}

static int fetch_one(struct transfer *t, const char *url, char **ret_next,
		     struct error *err)
{
	struct curl_slist *headers = NULL;
	int r = t->header ? 0 : fetch_check(t->rules, url, err);

	if (r < 0)
		return r;
	t->handle = t->curl->easy_init();
	if (!t->handle)
		return error_set(err, -ENOMEM, 0, "out of memory");
	t->since_nsec = now_nsec();
	t->since_bytes = 0;
	t->refusal_bytes = 0;
	set_up(t, url);
	set_up_kind(t);
	if (t->header)
		headers = t->curl->slist_append(NULL, t->header);
	t->curl->easy_setopt(t->handle, CURLOPT_HTTPHEADER, headers);
	r = judge(t, t->curl->easy_perform(t->handle), ret_next, err);
	t->curl->easy_cleanup(t->handle);
	t->curl->slist_free_all(headers);
	return r;
}

/* @t has what kind of transfer it is. */
static int follow(struct transfer *t, const char *url, struct error *err)
{
	CLEANUP(freep) char *at = strdup(url);
	unsigned int n = 0;
	int code = 1;

	t->curl = curl_lib_load();
	t->err = &t->why;
	if (!at)
		return error_set(err, -ENOMEM, 0, "out of memory");
	while (code > 0) {
		char *next = NULL;

		if (n++ > FETCH_REDIRECTS_MAX) {
			code = error_set(&t->why, -ELOOP, 0,
					 "over %d redirects",
					 FETCH_REDIRECTS_MAX);
			break;
		}
		code = t->curl ? fetch_one(t, at, &next, &t->why)
			       : fetch_check(t->rules, at, &t->why);
		if (code > 0 && t->header) {
			free(next);
			code = error_set(&t->why, -EPERM, 0,
					 "the server redirects, which is not "
					 "followed with a token");
		} else if (code > 0) {
			free(at);
			at = next;
		}
	}
	return code < 0 ? error_set(err, code, 0, "%.256s: %s", at, t->why.msg)
			: 0;
}

int fetch(const struct fetch_rules *r, const char *url,
	  const struct fetch_sink *to, struct error *err)
{
	struct transfer t = { .rules = r, .to = to };

	return follow(&t, url, err);
}

int fetch_as(const struct fetch_rules *r, const char *url, const char *header,
	     const struct fetch_sink *to, struct error *err)
{
	struct transfer t = { .rules = r, .to = to, .header = header };

	return follow(&t, url, err);
}

int fetch_part(const struct fetch_rules *r, const char *url, uint64_t off,
	       uint64_t len, const struct fetch_sink *to, struct error *err)
{
	struct transfer t = {
		.rules = r, .to = to, .part = true, .off = off, .left = len
	};

	return follow(&t, url, err);
}

int fetch_size(const struct fetch_rules *r, const char *url, uint64_t *ret,
	       struct error *err)
{
	struct transfer t = { .rules = r, .ask = true };
	int code = follow(&t, url, err);

	if (code >= 0)
		*ret = t.size;
	return code;
}
