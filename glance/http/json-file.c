/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>

#include "glance/http/json-file.h"
#include "glance/http/json-in.h"

int json_file_open(struct json_file *f, const char *path, struct error *err)
{
	f->path = realpath(path, NULL);
	return f->path ? 0
		       : error_set(err, -EINVAL, 0, "%s: %s", path,
				   errno_text(errno));
}

void json_file_done(struct json_file *f)
{
	free(f->path);
	*f = (struct json_file){ 0 };
}

static int read_text(struct json_file *f, char **ret, size_t *ret_len,
		     struct error *err)
{
	CLEANUP(closep)
	int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	CLEANUP(freep) char *text = NULL;
	struct stat st = { 0 };
	ssize_t n;

	f->seen = st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -EINVAL, 0, "%s", errno_text(errno));
	f->seen = st;
	if (!S_ISREG(st.st_mode) || st.st_size > JSON_FILE_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "is no regular file of at most %u bytes",
				 JSON_FILE_BYTES_MAX);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	n = read(fd, text, (size_t)st.st_size);
	if (n < 0)
		return error_set(err, -EINVAL, 0, "%s", errno_text(errno));
	*ret = TAKE_PTR(text);
	*ret_len = (size_t)n;
	return 0;
}

int json_file_read(struct json_file *f, json_t **ret, struct error *err)
{
	CLEANUP(freep) char *text = NULL;
	size_t len = 0;
	int r = read_text(f, &text, &len, err);

	return r < 0 ? r : json_in_parse(text, len, ret, err);
}

bool json_file_changed(const struct json_file *f)
{
	struct stat st;

	if (stat(f->path, &st) < 0)
		return !f->complained;
	return st.st_ino != f->seen.st_ino || st.st_size != f->seen.st_size ||
	       st.st_mtim.tv_sec != f->seen.st_mtim.tv_sec ||
	       st.st_mtim.tv_nsec != f->seen.st_mtim.tv_nsec;
}
