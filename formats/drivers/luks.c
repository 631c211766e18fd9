/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A LUKS1 volume: a header with key slots, then the disk, enciphered sector
 * by sector. The header is luks-key.c's; sectors are counted from the disk's
 * start. "LUKS On-Disk Format Specification", version 1.2.3.
 *
 * Refused: LUKS2, and volumes whose header lies elsewhere (detached).
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/layer.h"
#include "formats/codec/luks-key.h"

#define LUKS_HEADER_BYTES 592U
#define LUKS_PAYLOAD_AT	  104U

struct luks_state {
	struct luks_info info;
	struct cipher *cipher; /* NULL: locked */
};

/*
 * The key file's bytes are the passphrase; when they are not, and end in the
 * newline that an editor leaves there, those before it may be.
 */
static int unlock(struct layer *l, struct error *err)
{
	struct luks_state *s = l->state;
	const uint8_t *key = l->options->key;
	size_t bytes = l->options->key_bytes;
	int r;

	r = luks_unlock(l->src, 0, l->src->bytes, key, bytes, &s->info,
			&s->cipher, err);
	if (r != -EACCES || !bytes || key[bytes - 1] != '\n')
		return r;
	error_clear(err);
	return luks_unlock(l->src, 0, l->src->bytes, key, bytes - 1, &s->info,
			   &s->cipher, err);
}

static int check_payload(const struct layer *l, struct error *err)
{
	const struct luks_state *s = l->state;

	if (s->info.payload_bytes_off < LUKS_HEADER_BYTES)
		return error_set(err, -ENOTSUP, LUKS_PAYLOAD_AT,
				 "LUKS header without its volume (payload at "
				 "%" PRIu64 ") is not supported",
				 s->info.payload_bytes_off);
	if (s->info.payload_bytes_off > l->src->bytes)
		return error_set(err, -EBADMSG, LUKS_PAYLOAD_AT,
				 "LUKS payload at %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 s->info.payload_bytes_off, l->src->bytes);
	return 0;
}

static int luks_open(struct layer *l, struct error *err)
{
	struct luks_state *s = l->state;
	int r;

	l->encrypted = true;
	l->locked = !l->options->key;
	/* What the header is, before any work for its key. */
	r = luks_read_info(l->src, 0, l->src->bytes, &s->info, err);
	if (r >= 0)
		r = check_payload(l, err);
	if (r >= 0 && !l->locked)
		r = unlock(l, err);
	if (r < 0)
		return r;
	/* A last sector that is cut cannot be deciphered. */
	l->bytes = round_down(l->src->bytes - s->info.payload_bytes_off,
			      CIPHER_SECTOR_BYTES);
	l->unit_bytes = CIPHER_SECTOR_BYTES;
	return 0;
}

static void luks_close(struct layer *l)
{
	struct luks_state *s = l->state;

	cipher_free(s->cipher);
}

static int luks_map(struct layer *l, uint64_t guest_off, uint64_t len,
		    struct extent *ret, struct error *err)
{
	const struct luks_state *s = l->state;
	int r;

	if (l->locked)
		return error_set(err, -EACCES, 0, "no key was given");
	r = extent_set_data(ret, l->src, s->info.payload_bytes_off, guest_off,
			    len, err);
	if (r < 0)
		return r;
	ret->cipher = s->cipher;
	ret->iv_sector = guest_off / CIPHER_SECTOR_BYTES;
	return 0;
}

static void luks_info(struct layer *l, struct info_sink *sink)
{
	const struct luks_state *s = l->state;

	sink->text(sink, "cipher", s->info.cipher);
	sink->text(sink, "hash", s->info.hash);
	sink->text(sink, "uuid", s->info.uuid);
	sink->number(sink, "payload-offset", s->info.payload_bytes_off);
	sink->number(sink, "key-bytes", s->info.key_bytes);
	sink->number(sink, "slots", s->info.slots);
}

const struct format_ops luks_format = {
	.name = "luks",
	.magic = { { 0, 6, "LUKS\xba\xbe" } },
	.state_bytes = sizeof(struct luks_state),
	.open = luks_open,
	.close = luks_close,
	.map = luks_map,
	.info = luks_info,
};
