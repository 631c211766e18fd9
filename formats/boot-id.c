/* SPDX-License-Identifier: BSD-3-Clause */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/boot-id.h"
#include "iouring/util.h"

#define BOOT_ID_TEXT_BYTES 36U /* 8-4-4-4-12 */

static const uint8_t *fake;

void boot_id_fake(const uint8_t *id)
{
	fake = id;
}

static int nibble(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

bool boot_id_get(uint8_t ret[BOOT_ID_BYTES])
{
	CLEANUP(closep)
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char text[BOOT_ID_TEXT_BYTES];
	uint8_t id[BOOT_ID_BYTES];
	size_t i, n = 0;

	if (fake) {
		memcpy(ret, fake, BOOT_ID_BYTES);
		return true;
	}
	if (fd < 0 || read(fd, text, sizeof(text)) != (ssize_t)sizeof(text))
		return false;
	for (i = 0; i < sizeof(text) && n < 2 * BOOT_ID_BYTES; i++) {
		int v = nibble(text[i]);

		if (text[i] == '-')
			continue;
		if (v < 0)
			return false;
		id[n / 2] = (uint8_t)(n % 2 ? id[n / 2] << 4 | v : v);
		n++;
	}
	if (n != 2 * BOOT_ID_BYTES)
		return false;
	memcpy(ret, id, BOOT_ID_BYTES);
	return true;
}

uint64_t process_started(int64_t pid)
{
	CLEANUP(closep) int fd = -1;
	char path[40], text[512], *at;
	unsigned int field;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* The name, the second field, may have anything in it. */
	at = strrchr(text, ')');
	for (field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}
