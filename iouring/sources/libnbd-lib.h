/* SPDX-License-Identifier: BSD-3-Clause */
/* libnbd, loaded when the first export is opened; see iouring/library.h. */
#ifndef IOURING_SOURCES_LIBNBD_LIB_H
#define IOURING_SOURCES_LIBNBD_LIB_H

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

struct libnbd_api {
	__typeof__(nbd_create) *create;
	__typeof__(nbd_close) *close;
	__typeof__(nbd_add_meta_context) *add_meta_context;
	__typeof__(nbd_get_size) *get_size;
	__typeof__(nbd_get_block_size) *get_block_size;
	__typeof__(nbd_is_read_only) *is_read_only;
	__typeof__(nbd_can_multi_conn) *can_multi_conn;
	__typeof__(nbd_can_zero) *can_zero;
	__typeof__(nbd_can_flush) *can_flush;
	__typeof__(nbd_can_cache) *can_cache;
	__typeof__(nbd_can_meta_context) *can_meta_context;
	__typeof__(nbd_aio_pread) *aio_pread;
	__typeof__(nbd_poll) *poll;
	__typeof__(nbd_aio_connect_uri) *aio_connect_uri;
	__typeof__(nbd_aio_block_status) *aio_block_status;
	__typeof__(nbd_aio_is_ready) *aio_is_ready;
	__typeof__(nbd_aio_is_dead) *aio_is_dead;
	__typeof__(nbd_aio_is_closed) *aio_is_closed;
	__typeof__(nbd_pread) *pread;
	__typeof__(nbd_pwrite) *pwrite;
	__typeof__(nbd_cache) *cache;
	__typeof__(nbd_zero) *zero;
	__typeof__(nbd_flush) *flush;
	__typeof__(nbd_block_status) *block_status;
	__typeof__(nbd_get_error) *get_error;
	__typeof__(nbd_get_errno) *get_errno;
};

extern struct libnbd_api libnbd_api;

/* False: it is not installed. Any thread. */
bool libnbd_load(void);

/* What the last call of this thread failed with. */
const char *libnbd_reason(void);

/*
 * A connection to @uri that asks for base:allocation, the caller's to close. Waits
 * until @deadline (of now_nsec()). Returns 0 or -EIO, with libnbd's words.
 */
int libnbd_connect(const char *uri, uint64_t deadline, struct nbd_handle **ret,
		   struct error *err);

/*
 * Something has happened on it, or a moment is over, or, with -1, @deadline, or
 * the process ends.
 */
int libnbd_poll(struct nbd_handle *h, uint64_t deadline);

/* Can it be asked for anything? */
bool libnbd_is_alive(struct nbd_handle *h);

#endif
