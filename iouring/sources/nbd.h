/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An export of any NBD server as a source: what it says of holes is known, and
 * several requests are under way at once where the server permits it. libnbd is
 * loaded when the first is opened.
 */
#ifndef IOURING_SOURCES_NBD_H
#define IOURING_SOURCES_NBD_H

#include <stdbool.h>

#include "iouring/source.h"

/* "nbd://", "nbds://", "nbd+unix://" ...: is @text such a URI? */
bool nbd_source_is_uri(const char *text);

/*
 * Connects to what @uri names. -ENOTSUP: libnbd is missing. -EIO: the server
 * cannot be reached, or has no such export. A server that goes away, or is silent, is
 * connected to anew, and what was asked of it is asked again, for as long as
 * remote-options.h says; then the read is -EIO, and the next one begins anew.
 */
int nbd_source_open(const char *uri, struct source **ret, struct error *err);

#endif
