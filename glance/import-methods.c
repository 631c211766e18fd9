/* SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "glance/glance-download.h"
#include "glance/import-methods.h"
#include "glance/http/text-buf.h"

static const char *const names[IMPORT_METHODS] = {
	[IMPORT_GLANCE_DIRECT] = "glance-direct",
	[IMPORT_WEB_DOWNLOAD] = "web-download",
	[IMPORT_COPY_IMAGE] = "copy-image",
	[IMPORT_GLANCE_DOWNLOAD] = "glance-download",
};

static bool is_here(const struct glance *g, int m)
{
	return m != IMPORT_GLANCE_DOWNLOAD || glance_download_offered(g);
}

const char *import_method_name(enum import_method m)
{
	return names[m];
}

bool import_method_by_name(const struct glance *g, const char *name,
			   enum import_method *ret)
{
	int m;

	for (m = 0; m < IMPORT_METHODS; m++) {
		if (is_here(g, m) && !strcmp(names[m], name)) {
			*ret = (enum import_method)m;
			return true;
		}
	}
	return false;
}

json_t *import_methods(const struct glance *g)
{
	json_t *list = json_array();
	int m;

	for (m = 0; list && m < IMPORT_METHODS; m++)
		if (is_here(g, m))
			json_array_append_new(list, json_string(names[m]));
	return list;
}

void import_methods_respond(struct request *q)
{
	struct text_buf b = { 0 };
	int m;

	for (m = 0; m < IMPORT_METHODS; m++)
		if (is_here(q->app, m))
			text_addf(&b, "%s%s", m ? "," : "", names[m]);
	if (!b.failed)
		respond_header(q, "OpenStack-image-import-methods", b.text);
	text_buf_done(&b);
}
