/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/replay.h"

#define FILE_SECONDS 20U /* for one file, on a busy machine */

uint8_t *replay_read(const char *path, size_t *ret_bytes)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *buf;

	MUST(f && !fstat(fileno(f), &st), "%s: %s", path, strerror(errno));
	*ret_bytes = (size_t)st.st_size;
	buf = malloc(*ret_bytes + 1);
	MUST(buf && fread(buf, 1, *ret_bytes, f) == *ret_bytes,
	     "%s cannot be read", path);
	fclose(f);
	return buf;
}

/* Returns whether the file's name keeps its word. */
static bool run_file(const char *path, replay_fn *run)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	struct replay_outcome o;
	uint8_t *buf;
	size_t bytes;
	bool ok = true;

	buf = replay_read(path, &bytes);
	alarm(FILE_SECONDS);
	run(buf, bytes, &o);
	alarm(0);
	free(buf);
	if (!strncmp(name, "valid-", 6))
		ok = !o.refused && !o.damaged;
	else if (!strncmp(name, "hostile-", 8))
		ok = o.refused || o.damaged;
	if (!ok)
		printf("FAILED: %s is %s\n", name,
		       o.refused   ? o.reason.msg
		       : o.damaged ? "damaged"
				   : "sound");
	return ok;
}

static unsigned int run_path(const char *path, replay_fn *run,
			     unsigned int *files)
{
	struct dirent **list;
	unsigned int failed = 0;
	char file[4096];
	int i, n;

	n = scandir(path, &list, NULL, alphasort);
	if (n < 0) {
		++*files;
		return !run_file(path, run);
	}
	for (i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.') {
			snprintf(file, sizeof(file), "%s/%s", path,
				 list[i]->d_name);
			failed += run_path(file, run, files);
		}
		free(list[i]);
	}
	free(list);
	return failed;
}

int replay(int argc, char **argv, replay_fn *run)
{
	unsigned int failed = 0, files = 0;
	int i;

	for (i = 1; i < argc; i++)
		failed += run_path(argv[i], run, &files);
	printf("%u files, %u failed\n", files, failed);
	return failed || !files;
}
