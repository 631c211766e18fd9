/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>

#include "formats/codec/gcrypt-lib.h"
#include "iouring/library.h"

struct gcrypt_api gcrypt;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;

#define SYMBOL(name)                                 \
	{                                            \
		"gcry_" #name, (void **)&gcrypt.name \
	}

static const struct library_symbol symbols[] = {
	SYMBOL(check_version),	SYMBOL(cipher_close), SYMBOL(cipher_decrypt),
	SYMBOL(cipher_encrypt), SYMBOL(cipher_open),  SYMBOL(cipher_setiv),
	SYMBOL(cipher_setkey),	SYMBOL(control),
};

_Static_assert(sizeof(gcrypt) == ARRAY_SIZE(symbols) * sizeof(void *),
	       "all are looked up");

static void load(void)
{
	loaded =
		library_load("libgcrypt.so.20", symbols, ARRAY_SIZE(symbols)) &&
		gcrypt.check_version("1.8.0"); /* has XTS */
	if (loaded)
		gcrypt.control(GCRYCTL_INITIALIZATION_FINISHED, 0);
}

int gcrypt_load(struct error *err)
{
	pthread_once(&once, load);
	if (!loaded)
		return error_set(err, -ENOTSUP, 0,
				 "libgcrypt 1.8 is needed, and not installed");
	return 0;
}
