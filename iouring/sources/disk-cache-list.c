/* SPDX-License-Identifier: BSD-3-Clause */
/* What a folder of copies has, for people; nothing of it need be open. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "iouring/sources/disk-cache-inside.h"
#include "iouring/sources/url.h"

static DIR *open_folder(struct error *err)
{
	int fd =
		openat(cache_folder(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (d)
		return d;
	error_set(err, -errno, 0, "cache-dir: %s", errno_text(errno));
	closep(&fd);
	return NULL;
}

/* "NAME.map" */
static bool is_map(const char *file, char ret_name[KEPT_NAME_BYTES])
{
	if (strlen(file) != KEPT_NAME_BYTES - 1 + 4 ||
	    strcmp(file + KEPT_NAME_BYTES - 1, ".map") != 0)
		return false;
	memcpy(ret_name, file, KEPT_NAME_BYTES - 1);
	ret_name[KEPT_NAME_BYTES - 1] = '\0';
	return true;
}

/* Of one that says nothing, nothing. */
static int tell(const char *file,
		int (*each)(void *opaque, const struct disk_cache_entry *e),
		void *opaque)
{
	CLEANUP(freep) char *shown = NULL;
	struct kept_info i;

	if (kept_look(cache_folder(), file, &i))
		return 0;
	shown = url_name_shown(i.text);
	return each(opaque,
		    &(struct disk_cache_entry){ .name = shown ? shown : "",
						.bytes = i.bytes,
						.kept_bytes = i.kept_bytes,
						.used = i.used.tv_sec,
						.in_use = i.in_use });
}

int disk_cache_list(int (*each)(void *opaque, const struct disk_cache_entry *e),
		    void *opaque, struct error *err)
{
	DIR *d = open_folder(err);
	char name[KEPT_NAME_BYTES];
	const struct dirent *e;
	int r = 0;

	if (!d)
		return -EIO;
	while (!r && (e = readdir(d)))
		if (is_map(e->d_name, name))
			r = tell(name, each, opaque);
	closedir(d);
	return r;
}

/* What says nothing, nobody asks for by name, its own or that which people see. */
static bool is_wanted(const char *file, const char *url)
{
	CLEANUP(freep) char *shown = NULL;
	struct kept_info i;

	if (!url)
		return true;
	if (kept_look(cache_folder(), file, &i))
		return false;
	shown = url_name_shown(i.text);
	return !strcmp(i.text, url) || (shown && !strcmp(shown, url));
}

int disk_cache_drop(const char *name, unsigned int *ret_busy, struct error *err)
{
	DIR *d = open_folder(err);
	char file[KEPT_NAME_BYTES];
	const struct dirent *e;
	int n = 0;

	*ret_busy = 0;
	if (!d)
		return -EIO;
	while ((e = readdir(d))) {
		if (!is_map(e->d_name, file) || !is_wanted(file, name))
			continue;
		if (kept_remove(cache_folder(), file) < 0)
			++*ret_busy;
		else
			n++;
	}
	closedir(d);
	return n;
}
