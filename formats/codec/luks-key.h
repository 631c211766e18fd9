/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The LUKS1 header: from a passphrase to a sector cipher.
 * "LUKS On-Disk Format Specification", version 1.2.3, sections 2 to 4.
 *
 * Used by every format that carries a LUKS1 header (qcow2's crypto header
 * extension, plain LUKS volumes).
 */
#ifndef FORMATS_CODEC_LUKS_KEY_H
#define FORMATS_CODEC_LUKS_KEY_H

#include <stdint.h>

#include "formats/codec/cipher.h"
#include "iouring/source.h"

struct luks_info {
	char cipher[80]; /* "aes-xts-plain64" */
	char hash[33]; /* "sha256" */
	char uuid[41];
	uint64_t payload_bytes_off; /* where the data begin, bytes from the
				       header's start */
	uint32_t key_bytes;
	unsigned int slots; /* active key slots */
};

/*
 * Reads and checks the header at @off in @src; its key material lies inside
 * [@off, @off + @len). No key is needed. LUKS2 and ciphers or hashes that we
 * do not have are -ENOTSUP by name, damage -EBADMSG.
 */
int luks_read_info(struct source *src, uint64_t off, uint64_t len,
		   struct luks_info *ret, struct error *err);

/*
 * The same, then tries @secret (any bytes) in every active slot and makes
 * the cipher of the data. A secret that opens none is -EACCES. The total
 * work of PBKDF2 is limited so that a hostile header cannot hold the caller
 * for more than a few seconds: -EFBIG.
 */
int luks_unlock(struct source *src, uint64_t off, uint64_t len,
		const uint8_t *secret, size_t secret_bytes,
		struct luks_info *ret_info, struct cipher **ret,
		struct error *err);

#endif
