/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>

#include "formats/cache.h"
#include "glance/http/text-buf.h"
#include "iouring/sources/disk-cache.h"
#include "nbd/connection.h"
#include "nbd/metrics.h"
#include "nbd/replay.h"

static uint64_t load(const _Atomic uint64_t *n)
{
	return atomic_load_explicit(n, memory_order_relaxed);
}

static void add_head(struct text_buf *b, const char *name, const char *type,
		     const char *help)
{
	text_addf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_counter(struct text_buf *b, const char *name, const char *help,
			uint64_t value)
{
	add_head(b, name, "counter", help);
	text_addf(b, "%s %" PRIu64 "\n", name, value);
}

static void add_gauge(struct text_buf *b, const char *name, const char *help,
		      uint64_t value)
{
	add_head(b, name, "gauge", help);
	text_addf(b, "%s %" PRIu64 "\n", name, value);
}

static void add_duration(struct text_buf *b, const char *op,
			 const struct traffic_count *c)
{
	static const char name[] = "platter_nbd_request_duration_seconds";
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < TRAFFIC_BUCKETS; i++) {
		sum += load(&c->took[i]);
		if (i < TRAFFIC_BUCKETS - 1)
			text_addf(b,
				  "%s_bucket{op=\"%s\",le=\"%g\"} %" PRIu64
				  "\n",
				  name, op, (double)(1ULL << i) / 1e6, sum);
		else
			text_addf(b,
				  "%s_bucket{op=\"%s\",le=\"+Inf\"} %" PRIu64
				  "\n",
				  name, op, sum);
	}
	text_addf(b, "%s_sum{op=\"%s\"} %.6f\n", name, op,
		  (double)load(&c->nsec) / 1e9);
	text_addf(b, "%s_count{op=\"%s\"} %" PRIu64 "\n", name, op, sum);
}

static void add_traffic(struct text_buf *b, const struct traffic *t)
{
	unsigned int op;

	add_head(b, "platter_nbd_request_duration_seconds", "histogram",
		 "Requests of NBD clients.");
	for (op = 0; op < TRAFFIC_OPS; op++)
		add_duration(b, traffic_op_name(op), &t->ops[op]);
	add_head(b, "platter_nbd_errors_total", "counter",
		 "Requests that failed.");
	for (op = 0; op < TRAFFIC_OPS; op++)
		text_addf(b,
			  "platter_nbd_errors_total{op=\"%s\"} %" PRIu64 "\n",
			  traffic_op_name(op), load(&t->ops[op].errors));
	add_head(b, "platter_nbd_bytes_total", "counter",
		 "Bytes of requests that succeeded.");
	for (op = 0; op < TRAFFIC_OPS; op++)
		text_addf(b, "platter_nbd_bytes_total{op=\"%s\"} %" PRIu64 "\n",
			  traffic_op_name(op), load(&t->ops[op].bytes));
}

static int count_connection(void *opaque, const struct connection_info *i)
{
	++*(uint64_t *)opaque;
	return 0;
}

static int add_object(void *opaque, const struct disk_cache_object *o)
{
	*(uint64_t *)opaque += o->bytes - o->kept_bytes;
	return 0;
}

static void add_disk_cache(struct text_buf *b)
{
	struct disk_cache_counts n;
	uint64_t left = 0;

	disk_cache_count(&n);
	disk_cache_each(add_object, &left);
	add_counter(b, "platter_disk_cache_hit_bytes_total",
		    "Bytes of remote images read from cache-dir=.",
		    n.hit_bytes);
	add_counter(b, "platter_disk_cache_fetched_bytes_total",
		    "Those that were fetched first.", n.fetched_bytes);
	add_counter(b, "platter_disk_cache_behind_bytes_total",
		    "Of these: ahead of readers, and by fill=.",
		    n.behind_bytes);
	add_gauge(b, "platter_disk_cache_missing_bytes",
		  "What is not there of the images that are open.", left);
	add_counter(b, "platter_trace_bytes_total",
		    "Bytes of disks that traces had fetched.", replay_bytes());
	add_counter(b, "platter_disk_cache_evicted_bytes_total",
		    "Those that went, to make room.", n.evicted_bytes);
}

void metrics_add(struct text_buf *b)
{
	uint64_t connections = 0;
	struct cache_stats cache;
	struct traffic t;

	export_get_traffic(&t);
	add_traffic(b, &t);
	add_gauge(b, "platter_nbd_exports", "Exports that are open.",
		  export_count());
	connection_each(count_connection, &connections);
	add_gauge(b, "platter_nbd_connections", "NBD clients.", connections);
	cache_get_stats(&cache);
	add_counter(b, "platter_cache_hits_total",
		    "Decoded clusters and resolved ranges that were there.",
		    cache.hits);
	add_counter(b, "platter_cache_misses_total", "Those that were not.",
		    cache.misses);
	add_counter(b, "platter_cache_table_misses_total",
		    "Pages of images' tables read.", cache.meta_misses);
	add_gauge(b, "platter_cache_bytes", "What is kept of them.",
		  cache.bytes);
	add_gauge(b, "platter_room_bytes",
		  "Memory of requests that decode at the moment.",
		  cache.room_bytes);
	add_counter(b, "platter_room_waits_total",
		    "Requests that waited for such memory.", cache.room_waits);
	if (disk_cache_is_on())
		add_disk_cache(b);
}
