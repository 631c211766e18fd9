/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recognition by the bytes that each kind has at a known place. A disk can be
 * several things at once, a CD image with a partition table for one: all are
 * told.
 *
 *	ISO 9660: ECMA-119, El Torito 1.0; GPT: UEFI 2.10, 5.3; kernels:
 *	Linux' Documentation/x86/boot.rst, arm64/booting.rst
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/raw-type.h"

#define HEAD_BYTES (68U << 10) /* to the end of btrfs' superblock */

#define ISO_SECTOR_BYTES    2048U
#define ISO_DESCRIPTORS_AT  (16U * ISO_SECTOR_BYTES)
#define ISO_DESCRIPTORS_MAX 16U
#define ISO_NAME_AT	    40U
#define ISO_NAME_BYTES	    32U

#define MBR_PARTITIONS_AT 446U
#define MBR_PARTITIONS	  4U
#define MBR_ENTRY_BYTES	  16U
#define MBR_TYPE_AT	  4U
#define MBR_TYPE_GPT	  0xeeU

#define GPT_AT		   512U
#define GPT_ENTRIES_AT	   (GPT_AT + 72)
#define GPT_COUNT_AT	   (GPT_AT + 80)
#define GPT_ENTRY_BYTES_AT (GPT_AT + 84)
#define GPT_ENTRIES_MAX	   128U

#define EXT_LABEL_AT	0x478U
#define EXT_COMPAT_AT	0x45cU
#define EXT_INCOMPAT_AT 0x460U
#define EXT_HAS_JOURNAL 0x4U
#define EXT_EXTENTS	0x40U

#define BZIMAGE_VERSION_AT 0x20eU

struct view {
	struct cursor c; /* of the disk's beginning */
	struct info_sink *sink;
	char content[256];
};

static void add_content(struct view *v, const char *what)
{
	size_t used = strlen(v->content);

	snprintf(v->content + used, sizeof(v->content) - used, "%s%s",
		 used ? ", " : "", what);
}

/* A name that is padded with spaces or NULs; control characters end it. */
static void tell_name(struct view *v, const char *key, size_t at, size_t bytes)
{
	char name[128] = "";
	size_t i, len = 0;

	if (bytes >= sizeof(name))
		bytes = sizeof(name) - 1;
	cursor_copy_at(&v->c, at, name, bytes);
	for (i = 0; i < bytes && (unsigned char)name[i] >= ' '; i++)
		if (name[i] != ' ')
			len = i + 1;
	name[len] = '\0';
	if (len)
		v->sink->text(v->sink, key, name);
}

static bool has(struct view *v, size_t at, const char *bytes, size_t len)
{
	return range_inside(at, len, v->c.len) &&
	       !memcmp(v->c.buf + at, bytes, len);
}

static void describe_iso(struct view *v)
{
	size_t at = ISO_DESCRIPTORS_AT;
	bool boots = false;
	unsigned int i;

	if (!has(v, at + 1, "CD001", 5))
		return;
	add_content(v, "ISO 9660 file system");
	tell_name(v, "volume", at + ISO_NAME_AT, ISO_NAME_BYTES);
	for (i = 0; i < ISO_DESCRIPTORS_MAX; i++, at += ISO_SECTOR_BYTES) {
		if (!has(v, at + 1, "CD001", 5) ||
		    cursor_u8_at(&v->c, at) == 255)
			break;
		if (has(v, at + 7, "EL TORITO SPECIFICATION", 23))
			boots = true;
	}
	v->sink->flag(v->sink, "el-torito", boots);
}

static void describe_ext(struct view *v)
{
	if (!has(v, 0x438, "\x53\xef", 2))
		return;
	if (cursor_le32_at(&v->c, EXT_INCOMPAT_AT) & EXT_EXTENTS)
		add_content(v, "ext4 file system");
	else if (cursor_le32_at(&v->c, EXT_COMPAT_AT) & EXT_HAS_JOURNAL)
		add_content(v, "ext3 file system");
	else
		add_content(v, "ext2 file system");
	tell_name(v, "label", EXT_LABEL_AT, 16);
}

static bool is_boot_sector(struct view *v)
{
	return has(v, 510, "\x55\xaa", 2);
}

/* File systems whose boot sector ends as an MBR does. */
static bool describe_fat(struct view *v)
{
	if (!is_boot_sector(v))
		return false;
	if (has(v, 3, "NTFS    ", 8))
		add_content(v, "NTFS file system");
	else if (has(v, 3, "EXFAT   ", 8))
		add_content(v, "exFAT file system");
	else if (has(v, 54, "FAT1", 4) || has(v, 82, "FAT32   ", 8))
		add_content(v, "FAT file system");
	else
		return false;
	return true;
}

static void describe_mbr(struct view *v)
{
	unsigned int i, used = 0;
	bool sound = true, gpt = false;

	if (!is_boot_sector(v))
		return;
	for (i = 0; i < MBR_PARTITIONS; i++) {
		size_t at = MBR_PARTITIONS_AT + i * MBR_ENTRY_BYTES;
		uint8_t status = cursor_u8_at(&v->c, at);
		uint8_t type = cursor_u8_at(&v->c, at + MBR_TYPE_AT);

		sound = sound && (status & 0x7f) == 0;
		used += type != 0;
		gpt = gpt || type == MBR_TYPE_GPT;
	}
	if (!sound || !used || gpt)
		return;
	add_content(v, "MBR partition table");
	v->sink->number(v->sink, "partitions", used);
}

static void describe_gpt(struct view *v)
{
	static const char none[16];
	uint64_t at = cursor_le64_at(&v->c, GPT_ENTRIES_AT);
	uint32_t n = cursor_le32_at(&v->c, GPT_COUNT_AT), i, used = 0;
	uint32_t bytes = cursor_le32_at(&v->c, GPT_ENTRY_BYTES_AT);

	if (!has(v, GPT_AT, "EFI PART", 8))
		return;
	add_content(v, "GPT partition table");
	if (at > HEAD_BYTES / 512 || bytes < 128 || bytes > 4096)
		return;
	for (i = 0; i < n && i < GPT_ENTRIES_MAX; i++) {
		size_t entry = (size_t)at * 512 + (size_t)i * bytes;

		used += range_inside(entry, sizeof(none), v->c.len) &&
			memcmp(v->c.buf + entry, none, sizeof(none));
	}
	v->sink->number(v->sink, "partitions", used);
}

static void describe_bzimage(struct view *v)
{
	if (!is_boot_sector(v) || !has(v, 0x202, "HdrS", 4))
		return;
	add_content(v, "Linux kernel (bzImage)");
	tell_name(v, "kernel-version",
		  (size_t)cursor_le16_at(&v->c, BZIMAGE_VERSION_AT) + 0x200,
		  100);
}

#define PACKED(what)                                                   \
	"looks like " what ", and is taken for a raw disk: unpack it " \
	"first (--format raw says that it is one)"

/* What one look tells. */
static const struct {
	size_t at;
	const char *bytes;
	size_t len;
	const char *content;
	size_t label_at; /* 0: none is told */
	size_t label_bytes;
	const char *packed; /* see raw_packed(); NULL: it is no such thing */
} table[] = {
	{ 0, "XFSB", 4, "XFS file system", 108, 12, NULL },
	{ 0x10040, "_BHRfS_M", 8, "btrfs file system", 0x1012b, 100, NULL },
	{ 0x400, "\xe2\xe1\xf5\xe0", 4, "EROFS file system", 0x440, 16, NULL },
	{ 0x400, "\x10\x20\xf5\xf2", 4, "F2FS file system", 0, 0, NULL },
	{ 0, "hsqs", 4, "squashfs file system", 0, 0, NULL },
	{ 4086, "SWAPSPACE2", 10, "swap space", 0x41c, 16, NULL },
	{ 0x218, "LVM2 001", 8, "LVM2 physical volume", 0, 0, NULL },
	{ 0x38, "ARM\x64", 4, "Linux kernel (arm64 Image)", 0, 0, NULL },
	{ 0,
	  "\x7f"
	  "ELF",
	  4, "ELF file (a kernel, perhaps)", 0, 0, NULL },
	{ 0, "070701", 6, "initial RAM disk (cpio)", 0, 0, NULL },
	{ 0, "070702", 6, "initial RAM disk (cpio)", 0, 0, NULL },
	{ 0, "\x1f\x8b\x08", 3, "gzip stream (an initial RAM disk, perhaps)", 0,
	  0, PACKED("a gzip stream") },
	{ 0, "\x28\xb5\x2f\xfd", 4,
	  "zstd stream (an initial RAM disk, perhaps)", 0, 0,
	  PACKED("a zstd stream") },
	{ 0,
	  "\xfd"
	  "7zXZ",
	  5, "xz stream (an initial RAM disk, perhaps)", 0, 0,
	  PACKED("an xz stream") },
	{ 0, "\x02\x21\x4c\x18", 4, "lz4 stream (an initial RAM disk, perhaps)",
	  0, 0, PACKED("an lz4 stream") },
	{ 0, "\x04\x22\x4d\x18", 4, "lz4 stream", 0, 0,
	  PACKED("an lz4 stream") },
	{ 0, "BZh", 3, "bzip2 stream", 0, 0, PACKED("a bzip2 stream") },
	{ 0, "PK\x03\x04", 4, "zip archive", 0, 0, PACKED("a zip archive") },
	{ 257, "ustar", 5, "tar archive (an OVA, perhaps)", 0, 0,
	  PACKED("a tar archive") },
};

const char *raw_packed(struct source *src)
{
	uint8_t head[512];
	size_t i, len = (size_t)min_u64(src->bytes, sizeof(head));

	if (source_read(src, head, len, 0, NULL) < 0)
		return NULL;
	/* A disk with a partition table is one, whatever it begins with. */
	if (len == sizeof(head) && head[510] == 0x55 && head[511] == 0xaa)
		return NULL;
	for (i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].packed && table[i].at + table[i].len <= len &&
		    !memcmp(head + table[i].at, table[i].bytes, table[i].len))
			return table[i].packed;
	return NULL;
}

void raw_describe(struct source *src, struct info_sink *s)
{
	size_t len = (size_t)min_u64(src->bytes, HEAD_BYTES), i;
	CLEANUP(freep) uint8_t *buf = malloc(HEAD_BYTES);
	struct view v = { .c = { .buf = buf, .len = len }, .sink = s };

	if (!buf || source_read(src, buf, len, 0, NULL) < 0)
		return;
	describe_iso(&v);
	if (!describe_fat(&v))
		describe_mbr(&v);
	describe_gpt(&v);
	describe_bzimage(&v);
	describe_ext(&v);
	for (i = 0; i < ARRAY_SIZE(table); i++) {
		if (!has(&v, table[i].at, table[i].bytes, table[i].len))
			continue;
		add_content(&v, table[i].content);
		if (table[i].label_at)
			tell_name(&v, "label", table[i].label_at,
				  table[i].label_bytes);
	}
	s->text(s, "content", v.content[0] ? v.content : "not recognised");
}
