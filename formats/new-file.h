/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file that gets its name when it is whole: it has none before, where the file
 * system can do that, and one that the next attempt takes over where it
 * cannot. It is for its owner alone (0600, less the umask).
 */
#ifndef FORMATS_NEW_FILE_H
#define FORMATS_NEW_FILE_H

#include "iouring/error.h"

struct new_file {
	char *path; /* that it shall have */
	char *temp; /* that it has; NULL: none */
	int fd;
};

/* What the name of an unfinished file ends with, where it needs one. */
#define NEW_FILE_SUFFIX ".part"

/*
 * Makes an empty file for @path, to be read and written by ret->fd, which the
 * caller may take. -EBUSY: another process is making it. *ret is the caller's
 * to new_file_done(), which does away with what was not named.
 */
int new_file_begin(const char *path, struct new_file *ret, struct error *err);
void new_file_done(struct new_file *f);

/* It has its name. -EEXIST: another has. Its folder is not synced. */
int new_file_name(struct new_file *f, struct error *err);

/* Where what is temporary lies: TMPDIR, or /var/tmp. */
const char *new_file_temp_folder(void);

/* One that never has a name, in @folder. *ret: a descriptor, the caller's. */
int new_file_nameless(const char *folder, int *ret, struct error *err);

#endif
