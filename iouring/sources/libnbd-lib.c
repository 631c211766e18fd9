/* SPDX-License-Identifier: BSD-3-Clause */
#include "iouring/sources/libnbd-lib.h"

#include <errno.h>

#include "iouring/library.h"
#include "iouring/sources/remote-options.h"
#include "iouring/util.h"

#define POLL_MSEC 200

struct libnbd_api libnbd_api;

bool libnbd_load(void)
{
	static const struct library_symbol symbols[] = {
		{ "nbd_create", (void **)&libnbd_api.create },
		{ "nbd_close", (void **)&libnbd_api.close },
		{ "nbd_add_meta_context",
		  (void **)&libnbd_api.add_meta_context },
		{ "nbd_get_size", (void **)&libnbd_api.get_size },
		{ "nbd_get_block_size", (void **)&libnbd_api.get_block_size },
		{ "nbd_is_read_only", (void **)&libnbd_api.is_read_only },
		{ "nbd_can_multi_conn", (void **)&libnbd_api.can_multi_conn },
		{ "nbd_can_zero", (void **)&libnbd_api.can_zero },
		{ "nbd_can_flush", (void **)&libnbd_api.can_flush },
		{ "nbd_can_cache", (void **)&libnbd_api.can_cache },
		{ "nbd_can_meta_context",
		  (void **)&libnbd_api.can_meta_context },
		{ "nbd_aio_pread", (void **)&libnbd_api.aio_pread },
		{ "nbd_poll", (void **)&libnbd_api.poll },
		{ "nbd_aio_connect_uri", (void **)&libnbd_api.aio_connect_uri },
		{ "nbd_aio_block_status",
		  (void **)&libnbd_api.aio_block_status },
		{ "nbd_aio_is_ready", (void **)&libnbd_api.aio_is_ready },
		{ "nbd_aio_is_dead", (void **)&libnbd_api.aio_is_dead },
		{ "nbd_aio_is_closed", (void **)&libnbd_api.aio_is_closed },
		{ "nbd_pread", (void **)&libnbd_api.pread },
		{ "nbd_pwrite", (void **)&libnbd_api.pwrite },
		{ "nbd_cache", (void **)&libnbd_api.cache },
		{ "nbd_zero", (void **)&libnbd_api.zero },
		{ "nbd_flush", (void **)&libnbd_api.flush },
		{ "nbd_block_status", (void **)&libnbd_api.block_status },
		{ "nbd_get_error", (void **)&libnbd_api.get_error },
		{ "nbd_get_errno", (void **)&libnbd_api.get_errno },
	};

	_Static_assert(sizeof(libnbd_api) ==
			       ARRAY_SIZE(symbols) * sizeof(void *),
		       "all are looked up");
	return library_load("libnbd.so.0", symbols, ARRAY_SIZE(symbols));
}

const char *libnbd_reason(void)
{
	const char *why = libnbd_api.get_error();

	return why ? why : "the server does not answer";
}

bool libnbd_is_alive(struct nbd_handle *h)
{
	return h && libnbd_api.aio_is_dead(h) != 1 &&
	       libnbd_api.aio_is_closed(h) != 1;
}

int libnbd_poll(struct nbd_handle *h, uint64_t deadline)
{
	if (now_nsec() >= deadline || remote_is_stopping())
		return -1;
	return libnbd_api.poll(h, POLL_MSEC) < 0 ? -1 : 0;
}

int libnbd_connect(const char *uri, uint64_t deadline, struct nbd_handle **ret,
		   struct error *err)
{
	struct nbd_handle *h = libnbd_api.create();
	bool ok = h && libnbd_api.add_meta_context(h, "base:allocation") >= 0 &&
		  libnbd_api.aio_connect_uri(h, uri) >= 0;

	while (ok && libnbd_is_alive(h) && libnbd_api.aio_is_ready(h) != 1 &&
	       !libnbd_poll(h, deadline))
		;
	if (ok && libnbd_api.aio_is_ready(h) == 1) {
		*ret = h;
		return 0;
	}
	error_set(err, -EIO, 0, "%s",
		  now_nsec() >= deadline ? "the server is silent"
					 : libnbd_reason());
	libnbd_api.close(h);
	return -EIO;
}
