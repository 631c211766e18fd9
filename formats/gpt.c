/* SPDX-License-Identifier: BSD-3-Clause */
/* UEFI 2.10, 5.3.2: the header in the second block, of disks with blocks of 512 bytes. */
#include "formats/gpt.h"

#include <string.h>

#include "formats/cursor.h"

#define HEADER_AT 512U

/* From there on */
enum {
	BYTES_AT = 12, /* of the header */
	SUM_AT = 16,
	OWN_AT = 24, /* where this one is, and ... */
	OTHER_AT = 32, /* ... the other, in the disk's last block */
	LAST_AT = 48, /* block of the disk's content */
};

#define BYTES_MIN 92U
#define BYTES_MAX 512U

/* Of its header: CRC-32 (IEEE 802.3), its own field as zero. */
static bool sum_is_right(const uint8_t *header, uint32_t bytes)
{
	uint32_t crc = UINT32_MAX, i, bit;
	struct cursor c = { .buf = header, .len = bytes };

	for (i = 0; i < bytes; i++) {
		crc ^= i - SUM_AT < 4 ? 0 : header[i];
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc == cursor_le32_at(&c, SUM_AT);
}

uint64_t gpt_disk_bytes(const uint8_t *head, size_t head_bytes)
{
	struct cursor c = { .buf = head, .len = head_bytes };
	uint64_t other, last;
	uint32_t bytes;

	if (head_bytes < HEADER_AT + BYTES_MAX || head[510] != 0x55 ||
	    head[511] != 0xaa || memcmp(head + HEADER_AT, "EFI PART", 8) != 0)
		return 0;
	bytes = cursor_le32_at(&c, HEADER_AT + BYTES_AT);
	other = cursor_le64_at(&c, HEADER_AT + OTHER_AT);
	last = cursor_le64_at(&c, HEADER_AT + LAST_AT);
	return bytes >= BYTES_MIN && bytes <= BYTES_MAX &&
			       sum_is_right(head + HEADER_AT, bytes) &&
			       cursor_le64_at(&c, HEADER_AT + OWN_AT) == 1 &&
			       last < other && other < UINT64_MAX / 512 - 1
		       ? (other + 1) * 512
		       : 0;
}
