/* SPDX-License-Identifier: BSD-3-Clause */
/* Which archives are images of containers, to be served as file systems. */
#ifndef FORMATS_ROOTFS_DOCKER_H
#define FORMATS_ROOTFS_DOCKER_H

#include "formats/containers/container.h"

#define DOCKER_FORMAT "docker"

/*
 * Is @c, which has no disk where @no_disk says so, what "docker save" or a tool of
 * OCI's has made, or, of those without a disk, the files of a machine?
 */
bool docker_is(const struct container *c, bool no_disk);

#endif
