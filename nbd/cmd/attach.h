/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks as /dev/nbdN: the kernel's devices, and the servers of images behind. */
#ifndef NBD_CMD_ATTACH_H
#define NBD_CMD_ATTACH_H

#include <stdbool.h>

#include "iouring/error.h"

/* N of /dev/nbdN is below it. */
#define ATTACH_DEVICES_MAX 1024U

/* Is @text "/dev/nbdN"? */
bool attach_parse_device(const char *text, unsigned int *ret);

/* Does the kernel have /dev/nbd@n, and is something attached to it? */
bool attach_is_there(unsigned int n);
bool attach_is_used(unsigned int n);

/*
 * For one process alone, until the descriptor is closed or it ends: others that
 * want the device are told that it is in use. -EBUSY: another has it.
 */
int attach_lock(unsigned int n, int *ret, struct error *err);

/* Runs a program to its end; one that fails has said why. */
int attach_run(const char *const argv[], struct error *err);

/* An image's own server. */
struct attach_server {
	char socket[64];
	char pid_file[64];
};
void attach_server_paths(unsigned int n, struct attach_server *ret);

/* With @options of platter serve, ended by NULL; it serves when this returns. */
int attach_server_begin(const struct attach_server *s, char *const *options,
			const char *image, struct error *err);
/* If it runs. */
void attach_server_end(const struct attach_server *s);

/* @server: qemu's options for it, see qemu-options.h; @keys: qemu_keys(), or NULL. */
int attach_connect(unsigned int n, const char *server, const char *keys,
		   bool read_only, struct error *err);

/* Partitions are there from now on. */
void attach_scan(unsigned int n);

/* -EBUSY: the device is mounted. It is free when this returns 0. */
int attach_disconnect(unsigned int n, struct error *err);

#endif
