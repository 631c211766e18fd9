/* SPDX-License-Identifier: BSD-3-Clause */
/* The log of a qcow2 file that is being written, as its files share it. */
#ifndef FORMATS_OVERLAY_QCOW2_LOG_INSIDE_H
#define FORMATS_OVERLAY_QCOW2_LOG_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/boot-id.h"
#include "formats/overlay/qcow2-write.h"

#define LOG_HEAD_BYTES	4096U
#define LOG_HALF_BYTES	(1ULL << 30)
#define LOG_NONCE_BYTES (QCOW2_MARK_BYTES - BOOT_ID_BYTES)
/* A flush is due then: 2 MiB. So much of each half has its room from the start. */
#define LOG_RECORDS_DUE 65536U
/* The file's, at least. */
#define LOG_BYTES                          \
	(LOG_HEAD_BYTES + LOG_HALF_BYTES + \
	 LOG_RECORDS_DUE * sizeof(struct log_record))

enum log_state { LOG_OPEN = 1, LOG_ENDED = 2 };

struct log_head {
	char magic[16];
	uint8_t boot[BOOT_ID_BYTES];
	uint8_t nonce[LOG_NONCE_BYTES];
	uint64_t ino; /* of the qcow2 file; its device's number may change */
	int64_t pid;
	uint64_t pid_started; /* proc(5), stat */
	uint64_t check; /* of all before it */
	/* Changed alone: */
	uint32_t state; /* enum log_state */
	uint32_t spoilt; /* an fdatasync() failed */
	uint32_t used; /* there are records of up to this generation */
};

struct log_record {
	uint64_t cluster; /* the guest's */
	uint64_t word, bitmap; /* struct entry */
	uint32_t gen;
	uint32_t check;
};

struct log_records {
	struct log_record *items;
	size_t n, room;
};

struct log_half {
	/* Meta: */
	uint32_t gen;
	struct log_records noted;
	/* write_lock: */
	uint32_t out_gen;
	struct log_records out; /* to be written */
	uint64_t n_written;
};

struct qcow2_log {
	char *path; /* NULL: not beside a file */
	struct source *src; /* NULL: there is none */
	struct log_head head;
	atomic_bool begun;

	/* Held by who writes. Before meta. */
	pthread_mutex_t write_lock;
	struct log_half halves[2];
	/* Meta: */
	unsigned int now; /* which half */
	uint32_t gen; /* its */
	uint32_t flushed; /* halves of up to this one are done with */
	uint32_t collected; /* ... when the flush under way ends well */
	uint64_t n; /* records of this generation */
	uint64_t n_lost, collected_lost, flushed_lost; /* no memory for them */

	/* Changes noted, and of those the first so many are in the file. */
	atomic_uint_fast64_t noted, written;

	/* At open: */
	uint64_t n_found[2]; /* records, by half */
	bool left; /* a predecessor's, to be ended when all is replayed */
};

/* ---- qcow2-log-file.c ---- */

/* What makes @r, the record @idx of its half, one of @h's log. */
uint32_t log_record_check(const struct log_head *h, const struct log_record *r,
			  uint64_t idx);

/* Where in the file its records begin. */
uint64_t log_half_off(unsigned int half);

/* False: there is no sound one. */
bool log_head_read(struct source *src, struct log_head *ret);

/* @field: a part of l->head, which is written at its place. */
int log_head_write_field(struct qcow2_log *l, const void *field, size_t bytes,
			 struct error *err);

/* That of a new log of @o's. -ENOTSUP, -EIO */
int log_head_fill(const struct qcow2_file *o, struct log_head *ret,
		  struct error *err);

/* Of the log of the file @path; to be freed. NULL: no memory. */
char *log_file_path(const char *path);

/* For writing. *ret NULL: there is none. */
int log_file_open(const char *path, struct source **ret, struct error *err);

/* l->src at l->path, which must not be there yet. */
int log_file_create(struct qcow2_log *l, struct error *err);

/* Closed, and gone if it has a path. */
void log_file_remove(struct qcow2_log *l);

#endif
