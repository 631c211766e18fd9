/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every driver. The order is that of probing: the strong magics at offset 0
 * first; raw, which is whatever nothing else claims, last.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/format.h"

extern const struct format_ops bochs_format;
extern const struct format_ops cloop_format;
extern const struct format_ops dmg_format;
extern const struct format_ops docker_format;
extern const struct format_ops luks_format;
extern const struct format_ops ploop_format;
extern const struct format_ops qcow2_format;
extern const struct format_ops qcow_format;
extern const struct format_ops qed_format;
extern const struct format_ops raw_format;
extern const struct format_ops vdi_format;
extern const struct format_ops vmdk_format;
extern const struct format_ops vhd_format;
extern const struct format_ops vhdx_format;

const struct format_ops *const format_table[] = {
	&qcow2_format,	&qcow_format,  &qed_format,   &luks_format,
	&bochs_format,	&cloop_format, &ploop_format, &vhdx_format,
	&vmdk_format, /* or text: its descriptor */
	&vdi_format, /* at 0x40 */
	&vhd_format, /* a fixed one is known by its tail alone */
	&dmg_format, /* by its tail */
	&docker_format, /* a container: containers/ finds it */
	&raw_format,	NULL,
};

/* What is made may have behind its name which it is; see layer_declare(). */
static bool is_made_as(const struct format_ops *f, const char *name)
{
	size_t n = strlen(f->name);

	return f->made && !strncmp(f->name, name, n) && name[n] == ':';
}

const struct format_ops *format_by_name(const char *name)
{
	const struct format_ops *const *f;

	for (f = format_table; *f; f++)
		if (!strcmp((*f)->name, name) || is_made_as(*f, name) ||
		    ((*f)->alias && !strcmp((*f)->alias, name)))
			return *f;
	/* QEMU's names for what raw images lie on. */
	if (!strcmp(name, "file") || !strcmp(name, "host_device"))
		return &raw_format;
	return NULL;
}

int format_in_folder(const char *path, char **ret, struct error *err)
{
	const struct format_ops *const *f;
	struct stat st;

	*ret = NULL;
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return 0;
	for (f = format_table; *f; f++) {
		CLEANUP(freep) char *file = NULL;

		if (!(*f)->folder_file)
			continue;
		if (asprintf(&file, "%s/%s", path, (*f)->folder_file) < 0) {
			file = NULL;
			return error_set(err, -ENOMEM, 0, "out of memory");
		}
		if (!stat(file, &st) && S_ISREG(st.st_mode)) {
			*ret = TAKE_PTR(file);
			return 0;
		}
	}
	return 0;
}
