/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>

#include "glance/http/text-buf.h"
#include "glance/import-state.h"
#include "iouring/util.h"

bool import_owns(const struct record *r, const char *task)
{
	const char *lock = record_property(r, IMPORT_LOCK);

	return lock && !strcmp(lock, task);
}

/* @list, by commas, without @name, or with it behind. To be freed. */
static char *change_list(const char *list, const char *name, bool with)
{
	struct text_buf b = { 0 };
	size_t len;

	text_add(&b, "");
	for (; list && *list; list += len + (list[len] == ',')) {
		len = strcspn(list, ",");
		if (len == strlen(name) && !strncmp(list, name, len))
			continue;
		text_add(&b, b.len ? "," : "");
		text_add_bytes(&b, list, len);
	}
	if (with)
		text_addf(&b, "%s%s", b.len ? "," : "", name);
	return text_buf_take(&b);
}

int import_reached(struct record *r, const char *name, bool ok,
		   struct error *err)
{
	CLEANUP(freep)
	char *to_come =
		change_list(record_property(r, IMPORT_TO_COME), name, false);
	CLEANUP(freep)
	char *failed =
		change_list(record_property(r, IMPORT_FAILED), name, !ok);
	int code = record_set_property(r, IMPORT_TO_COME,
				       to_come ? to_come : "", err);

	return code < 0 ? code
			: record_set_property(r, IMPORT_FAILED,
					      failed ? failed : "", err);
}
