/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>

#include "iouring/library.h"
#include "iouring/sources/crypto-lib.h"
#include "iouring/util.h"

static struct crypto_lib lib;
static bool loaded;

static void load(void)
{
	static const struct library_symbol symbols[] = {
		{ "SHA256", (void **)&lib.sha256 },
		{ "HMAC", (void **)&lib.hmac },
		{ "EVP_sha256", (void **)&lib.evp_sha256 },
		{ "EVP_get_digestbyname", (void **)&lib.get_digestbyname },
		{ "EVP_MD_CTX_new", (void **)&lib.ctx_new },
		{ "EVP_MD_CTX_free", (void **)&lib.ctx_free },
		{ "EVP_DigestInit_ex", (void **)&lib.digest_init },
		{ "EVP_DigestUpdate", (void **)&lib.digest_update },
		{ "EVP_DigestFinal_ex", (void **)&lib.digest_final },
	};

	_Static_assert(sizeof(lib) == ARRAY_SIZE(symbols) * sizeof(void *),
		       "all are looked up");
	loaded = library_load("libcrypto.so.3", symbols, ARRAY_SIZE(symbols));
}

const struct crypto_lib *crypto_lib_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return loaded ? &lib : NULL;
}
