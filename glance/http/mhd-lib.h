/* SPDX-License-Identifier: BSD-3-Clause */
/* libmicrohttpd, loaded where there is a port to serve: GnuTLS comes with it,
 * and takes as long to load as all else. */
#ifndef GLANCE_HTTP_MHD_LIB_H
#define GLANCE_HTTP_MHD_LIB_H

#include <stdbool.h>

#include <microhttpd.h>

struct mhd_lib {
	__typeof__(MHD_add_response_header) *add_response_header;
	__typeof__(MHD_create_response_for_upgrade)
		*create_response_for_upgrade;
	__typeof__(MHD_create_response_from_buffer)
		*create_response_from_buffer;
	__typeof__(MHD_create_response_from_callback)
		*create_response_from_callback;
	__typeof__(MHD_create_response_from_fd_at_offset64)
		*create_response_from_fd_at_offset64;
	__typeof__(MHD_destroy_response) *destroy_response;
	__typeof__(MHD_get_connection_info) *get_connection_info;
	__typeof__(MHD_get_connection_values) *get_connection_values;
	__typeof__(MHD_get_reason_phrase_for) *get_reason_phrase_for;
	__typeof__(MHD_get_version) *get_version;
	__typeof__(MHD_is_feature_supported) *is_feature_supported;
	__typeof__(MHD_lookup_connection_value) *lookup_connection_value;
	__typeof__(MHD_queue_response) *queue_response;
	__typeof__(MHD_start_daemon) *start_daemon;
	__typeof__(MHD_stop_daemon) *stop_daemon;
	__typeof__(MHD_upgrade_action) *upgrade_action;
};

/* False: it is not installed. Any thread. */
bool mhd_lib_load(void);

/* Once that was true; NULL before. */
extern const struct mhd_lib *mhd;

#endif
