/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An OVF descriptor (DMTF DSP0243): which machines a package describes, and which
 * of its files are their disks. Of versions 0.9, 1.x and 2.x, by elements' local
 * names; what it says of anything else is not looked at.
 *
 *	Envelope
 *	  References      File: id, href, size, compression, chunkSize
 *	  DiskSection     Disk: diskId, fileRef, parentRef, format, capacity,
 *	                        capacityAllocationUnits
 *	  NetworkSection  Network: name
 *	  VirtualSystem   id; Name; OperatingSystemSection; VirtualHardwareSection
 *	                    Item: ResourceType, VirtualQuantity, AllocationUnits
 *
 * Parsed without DTD, entities and network. What it says of sizes is often wrong:
 * the disk's own header rules.
 */
#ifndef FORMATS_CONTAINERS_OVF_H
#define FORMATS_CONTAINERS_OVF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

#define OVF_BYTES_MAX	 (4U << 20)
#define OVF_DEPTH_MAX	 64U /* of elements in each other */
#define OVF_FILES_MAX	 4096U
#define OVF_DISKS_MAX	 4096U
#define OVF_NETWORKS_MAX 1024U
#define OVF_SYSTEMS_MAX	 1024U

/* Strings are the descriptor's; NULL: it does not say. Numbers of 0, too. */
struct ovf_file {
	char *id, *href;
	char *compression; /* "gzip"; NULL or "identity": none */
	uint64_t chunk_bytes; /* it lies in several files of so many */
};

struct ovf_disk {
	char *id;
	char *file_ref; /* ovf_file.id; NULL: it is empty */
	char *parent_ref; /* ovf_disk.id */
	char *format; /* a URI */
	uint64_t capacity; /* bytes */
};

struct ovf_system {
	char *id, *name, *os;
	char *firmware; /* "efi", "bios" */
	uint64_t cpus, memory_bytes;
};

struct ovf {
	struct ovf_file *files;
	size_t n_files;
	struct ovf_disk *disks;
	size_t n_disks;
	char **networks;
	size_t n_networks;
	struct ovf_system *systems;
	size_t n_systems;
};

/*
 * Takes a descriptor of @bytes apart; *ret is the caller's to ovf_done(), and empty
 * on failure. -EBADMSG: it is none; -EPERM: it has entities; -EFBIG: a limit.
 */
int ovf_parse(const uint8_t *text, size_t bytes, struct ovf *ret,
	      struct error *err);
void ovf_done(struct ovf *o);

/* NULL: it has none. */
const struct ovf_file *ovf_file_of(const struct ovf *o,
				   const struct ovf_disk *d);
/* By its diskId, or NULL. */
const struct ovf_disk *ovf_disk(const struct ovf *o, const char *id);
/* That whose file is called so, or NULL. */
const struct ovf_disk *ovf_disk_of_file(const struct ovf *o, const char *href);

#endif
