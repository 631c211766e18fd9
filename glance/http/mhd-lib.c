/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>

#include "glance/http/mhd-lib.h"
#include "iouring/library.h"
#include "iouring/util.h"

static struct mhd_lib lib;

const struct mhd_lib *mhd;

static void load(void)
{
	static const struct library_symbol symbols[] = {
		{ "MHD_add_response_header",
		  (void **)&lib.add_response_header },
		{ "MHD_create_response_for_upgrade",
		  (void **)&lib.create_response_for_upgrade },
		{ "MHD_create_response_from_buffer",
		  (void **)&lib.create_response_from_buffer },
		{ "MHD_create_response_from_callback",
		  (void **)&lib.create_response_from_callback },
		{ "MHD_create_response_from_fd_at_offset64",
		  (void **)&lib.create_response_from_fd_at_offset64 },
		{ "MHD_destroy_response", (void **)&lib.destroy_response },
		{ "MHD_get_connection_info",
		  (void **)&lib.get_connection_info },
		{ "MHD_get_connection_values",
		  (void **)&lib.get_connection_values },
		{ "MHD_get_reason_phrase_for",
		  (void **)&lib.get_reason_phrase_for },
		{ "MHD_get_version", (void **)&lib.get_version },
		{ "MHD_is_feature_supported",
		  (void **)&lib.is_feature_supported },
		{ "MHD_lookup_connection_value",
		  (void **)&lib.lookup_connection_value },
		{ "MHD_queue_response", (void **)&lib.queue_response },
		{ "MHD_start_daemon", (void **)&lib.start_daemon },
		{ "MHD_stop_daemon", (void **)&lib.stop_daemon },
		{ "MHD_upgrade_action", (void **)&lib.upgrade_action },
	};

	_Static_assert(sizeof(lib) == ARRAY_SIZE(symbols) * sizeof(void *),
		       "all are looked up");
	if (library_load("libmicrohttpd.so.12", symbols, ARRAY_SIZE(symbols)))
		mhd = &lib;
}

bool mhd_lib_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return mhd;
}
