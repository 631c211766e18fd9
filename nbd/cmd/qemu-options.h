/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An export in qemu's --image-opts, and no URI, so that there can be a
 * reconnect-delay: who uses it waits while a server is started anew.
 */
#ifndef NBD_CMD_QEMU_OPTIONS_H
#define NBD_CMD_QEMU_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "iouring/error.h"

/*
 * @type: "unix", with @at a socket's path; "inet", of host @at and @port; "vsock",
 * of the machine @at (a number) and @port. @export is not encoded. To be freed;
 * NULL: there is no memory.
 */
char *qemu_options(const char *type, const char *at, uint32_t port,
		   const char *export);

/*
 * The same for @uri, nbd[s]:// or nbd[s]+unix://, with the keys that QEMU calls @tls,
 * which those with TLS need (-EINVAL); NULL: none. *ret is to be freed. Others are
 * -ENOTSUP.
 */
int qemu_options_of_uri(const char *uri, const char *tls, char **ret,
			struct error *err);

/* "tls-creds-x509,...": the object @tls, of the keys in folder @dir. As above. */
char *qemu_keys(const char *tls, const char *dir);

/* The same as qemu_options_of_uri() for blockdev-add, as node @node. */
int qemu_node_of_uri(const char *uri, const char *node, const char *tls,
		     json_t **ret, struct error *err);

/*
 * Does @file, as QEMU calls an image ("nbd://...", "json:{...}"), mean the export
 * @uri, reached in the same way? Other spellings of a host are other hosts.
 */
bool qemu_file_is_export(const char *file, const char *uri);

/* @uri of an export at its @state, see export-name.h. *ret is to be freed. */
int qemu_uri_with_state(const char *uri, const char *state, char **ret,
			struct error *err);

#endif
