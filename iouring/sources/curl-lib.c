/* SPDX-License-Identifier: BSD-3-Clause */
#include <pthread.h>

#include "iouring/library.h"
#include "iouring/sources/curl-lib.h"
#include "iouring/util.h"

static struct curl_lib lib;
static bool loaded;

static void load(void)
{
	static const struct library_symbol symbols[] = {
		{ "curl_easy_init", (void **)&lib.easy_init },
		{ "curl_easy_reset", (void **)&lib.easy_reset },
		{ "curl_easy_setopt", (void **)&lib.easy_setopt },
		{ "curl_easy_perform", (void **)&lib.easy_perform },
		{ "curl_easy_getinfo", (void **)&lib.easy_getinfo },
		{ "curl_easy_cleanup", (void **)&lib.easy_cleanup },
		{ "curl_easy_strerror", (void **)&lib.easy_strerror },
		{ "curl_multi_init", (void **)&lib.multi_init },
		{ "curl_multi_setopt", (void **)&lib.multi_setopt },
		{ "curl_multi_add_handle", (void **)&lib.multi_add_handle },
		{ "curl_multi_remove_handle",
		  (void **)&lib.multi_remove_handle },
		{ "curl_multi_perform", (void **)&lib.multi_perform },
		{ "curl_multi_info_read", (void **)&lib.multi_info_read },
		{ "curl_multi_poll", (void **)&lib.multi_poll },
		{ "curl_multi_wakeup", (void **)&lib.multi_wakeup },
		{ "curl_multi_cleanup", (void **)&lib.multi_cleanup },
		{ "curl_slist_append", (void **)&lib.slist_append },
		{ "curl_slist_free_all", (void **)&lib.slist_free_all },
		{ "curl_url", (void **)&lib.url },
		{ "curl_url_set", (void **)&lib.url_set },
		{ "curl_url_get", (void **)&lib.url_get },
		{ "curl_url_cleanup", (void **)&lib.url_cleanup },
		{ "curl_free", (void **)&lib.free },
	};

	_Static_assert(sizeof(lib) == ARRAY_SIZE(symbols) * sizeof(void *),
		       "all are looked up");
	loaded = library_load("libcurl.so.4", symbols, ARRAY_SIZE(symbols));
}

const struct curl_lib *curl_lib_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return loaded ? &lib : NULL;
}
