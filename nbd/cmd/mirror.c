/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "iouring/util.h"
#include "nbd/cmd/mirror.h"
#include "nbd/cmd/progress.h"
#include "nbd/cmd/qemu-options.h"
#include "nbd/cmd/stop.h"

#define NAME_PREFIX "platter-"
#define POLL_USEC   20000U
/* As an overlay's pages, so that what is near a change is not sent with it. */
#define GRANULARITY 4096
#define BUF_BYTES   (16 << 20)

/* ---- disks ---- */

static const char *text_at(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

/* False: it is none that is written, or QEMU's answer makes no sense. */
static bool take_disk(const json_t *entry, struct guest_disk *ret)
{
	const json_t *in = json_object_get(entry, "inserted");
	const char *device = text_at(entry, "device");

	*ret = (struct guest_disk){
		.name = *device ? device : text_at(entry, "qdev"),
		.node = text_at(in, "node-name"),
		.format = text_at(in, "drv"),
		.file = text_at(in, "file"),
		.bytes = json_integer_value(json_object_get(
			json_object_get(in, "image"), "virtual-size")),
	};
	if (!*ret->name)
		ret->name = ret->node;
	return *ret->node && !json_is_true(json_object_get(in, "ro"));
}

int guest_disk_each(const json_t *answer,
		    int (*each)(void *opaque, const struct guest_disk *d),
		    void *opaque)
{
	struct guest_disk d;
	const json_t *entry;
	size_t i;
	int r = 0;

	json_array_foreach(answer, i, entry) {
		if (take_disk(entry, &d))
			r = each(opaque, &d);
		if (r)
			break;
	}
	return r;
}

struct search {
	const char *name;
	struct guest_disk *ret;
	unsigned int n;
};

/* "/machine/peripheral/disk0/virtio-backend" is of device disk0. */
static bool is_qdev(const char *path, const char *id)
{
	const char *at = strstr(path, "/peripheral/");
	size_t len = strlen(id);

	return at && !strncmp(at + 12, id, len) &&
	       (at[12 + len] == '\0' || at[12 + len] == '/');
}

static int match_disk(void *opaque, const struct guest_disk *d)
{
	struct search *s = opaque;

	if (s->name && strcmp(d->name, s->name) != 0 &&
	    strcmp(d->node, s->name) != 0 && !is_qdev(d->name, s->name))
		return 0;
	*s->ret = *d;
	s->n++;
	return 0;
}

int guest_disk_find(struct qmp *q, const char *device, struct guest_disk *ret,
		    json_t **ret_answer, struct error *err)
{
	struct search s = { .name = device, .ret = ret };
	json_t *answer = NULL;
	int r = qmp_run(q, "query-block", NULL, &answer, err);

	if (r < 0)
		return r;
	guest_disk_each(answer, match_disk, &s);
	if (s.n == 1) {
		*ret_answer = answer;
		return 0;
	}
	json_decref(answer);
	if (device)
		return error_set(err, -ENOENT, 0,
				 "the guest has %s disk \"%s\" that it writes",
				 s.n ? "more than one" : "no", device);
	return error_set(err, -ENOENT, 0,
			 "the guest has %u disks that it writes: name one "
			 "(--device)",
			 s.n);
}

size_t guest_disk_shown_bytes(const struct guest_disk *d)
{
	bool is_export =
		!strncmp(d->file, "nbd", 3) || !strncmp(d->file, "json:", 5);

	return is_export ? strcspn(d->file, "~") : strlen(d->file);
}

bool guest_disk_is_blocked(const struct guest_disk *d)
{
	static const char *const formats[] = { "vmdk", "vhdx",	    "vdi",
					       "vpc",  "parallels", "qcow" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(formats); i++)
		if (!strcmp(d->format, formats[i]))
			return true;
	return false;
}

/* ---- names ---- */

/* FNV-1a: other exports have other names, without a right that is in them. */
static uint64_t hash(const char *s)
{
	uint64_t h = 0xcbf29ce484222325U;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3U;
	return h;
}

void mirror_names(const char *to, char ret_node[MIRROR_NAME_BYTES],
		  char ret_job[MIRROR_NAME_BYTES])
{
	snprintf(ret_node, MIRROR_NAME_BYTES, NAME_PREFIX "n%016" PRIx64,
		 hash(to));
	snprintf(ret_job, MIRROR_NAME_BYTES, NAME_PREFIX "j%016" PRIx64,
		 hash(to));
}

bool mirror_is_ours(const char *name)
{
	return !strncmp(name, NAME_PREFIX, strlen(NAME_PREFIX));
}

/* ---- the job ---- */

struct job {
	const struct mirror *m;
	char node[MIRROR_NAME_BYTES], id[MIRROR_NAME_BYTES];
	struct progress progress;
	char status[16];
	json_int_t done, total;
	char why[256]; /* it failed; "": it did not */
};

/* Returns 1, 0: there is none, or a negative errno. */
static int look(struct job *j, struct error *err)
{
	json_t *answer = NULL, *one;
	int r = qmp_run(j->m->qmp, "query-jobs", NULL, &answer, err);
	size_t i;

	if (r < 0)
		return r;
	json_array_foreach(answer, i, one) {
		if (strcmp(text_at(one, "id"), j->id) != 0)
			continue;
		snprintf(j->status, sizeof(j->status), "%s",
			 text_at(one, "status"));
		snprintf(j->why, sizeof(j->why), "%s", text_at(one, "error"));
		j->done = json_integer_value(
			json_object_get(one, "current-progress"));
		j->total = json_integer_value(
			json_object_get(one, "total-progress"));
		r = 1;
	}
	json_decref(answer);
	return r;
}

static int run_on_job(struct job *j, const char *command, struct error *err)
{
	return qmp_run(j->m->qmp, command, json_pack("{s:s}", "id", j->id),
		       NULL, err);
}

/* Of an attempt that ended. */
static void drop_node(struct job *j)
{
	qmp_run(j->m->qmp, "blockdev-del",
		json_pack("{s:s}", "node-name", j->node), NULL, NULL);
}

static int add_node(struct job *j, struct error *err)
{
	json_t *node;
	int r = qemu_node_of_uri(j->m->to, j->node, j->m->tls, &node, err);

	return r < 0 ? r : qmp_run(j->m->qmp, "blockdev-add", node, NULL, err);
}

/*
 * What the guest writes meanwhile is written to both before it is answered, so
 * that it ends however much that is; and, where both are one disk, so that no
 * older data are copied over it.
 */
static int begin(struct job *j, const struct guest_disk *d, struct error *err)
{
	static const char *const sync[] = { [MIRROR_ALL] = "full",
					    [MIRROR_ALLOCATED] = "top",
					    [MIRROR_NOTHING] = "none" };
	json_t *args;
	int r;

	drop_node(j);
	r = add_node(j, err);
	if (r < 0)
		return r;
	args = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:b}",
			 "job-id", j->id, "device", d->node, "target", j->node,
			 "sync", sync[j->m->what], "copy-mode",
			 "write-blocking", "granularity", GRANULARITY,
			 "buf-size", BUF_BYTES, "speed", (json_int_t)j->m->rate,
			 "auto-dismiss", false);
	r = qmp_run(j->m->qmp, "blockdev-mirror", args, NULL, err);
	if (r < 0)
		drop_node(j);
	return r;
}

/* The guest stays where it is. */
static int give_up(struct job *j, struct error *err)
{
	struct error unheard = { 0 };

	if (qmp_run(j->m->qmp, "block-job-cancel",
		    json_pack("{s:s, s:b}", "device", j->id, "force", true),
		    NULL, &unheard) >= 0)
		while (look(j, &unheard) == 1 &&
		       strcmp(j->status, "concluded") != 0)
			usleep(POLL_USEC);
	run_on_job(j, "job-dismiss", NULL);
	drop_node(j);
	return error_set(err, -ECANCELED, 0,
			 "was interrupted; the guest has the disk that it had");
}

/* The job has ended: with the guest on the other disk, or with an error. */
static int conclude(struct job *j, struct error *err)
{
	int r = run_on_job(j, "job-dismiss", err);

	if (r < 0 || !*j->why)
		return r;
	drop_node(j);
	return error_set(err, -EIO, 0,
			 "QEMU: the mirror ended: %s; the guest has the disk "
			 "that it had",
			 j->why);
}

static void tell(struct job *j)
{
	if (!j->progress.total_bytes && j->total > 0)
		progress_begin(&j->progress, "migrate", (uint64_t)j->total,
			       j->m->quiet);
	if (!j->progress.total_bytes)
		return;
	/* It grows with what the guest writes. */
	j->progress.total_bytes = (uint64_t)j->total;
	progress_tell(&j->progress, (uint64_t)j->done);
}

static int wait_for_end(struct job *j, struct error *err)
{
	bool asked = false;
	int r;

	while ((r = look(j, err)) == 1) {
		tell(j);
		if (!strcmp(j->status, "concluded"))
			return conclude(j, err);
		if (!strcmp(j->status, "ready") && !asked) {
			r = run_on_job(j, "job-complete", err);
			asked = r >= 0;
		} else if (stop_signal() && !asked) {
			return give_up(j, err);
		} else {
			usleep(POLL_USEC);
		}
		if (r < 0)
			return r;
	}
	return r < 0 ? r
		     : error_set(err, -EIO, 0,
				 "QEMU: the mirror is gone: somebody else has "
				 "ended it");
}

/* Does the guest have what the job was to give it? */
static int look_at_disk(struct job *j, bool *ret, struct error *err)
{
	struct error why = { 0 };
	json_t *answer = NULL;
	struct guest_disk d;
	int r = guest_disk_find(j->m->qmp, j->node, &d, &answer, &why);

	json_decref(answer);
	*ret = r >= 0;
	return r < 0 && r != -ENOENT ? error_set(err, r, 0, "%s", why.msg) : 0;
}

int mirror_find(struct qmp *q, const char *to, enum mirror_state *ret,
		struct error *err)
{
	const struct mirror m = { .qmp = q, .to = to };
	struct job j = { .m = &m };
	bool there = false;
	int r;

	mirror_names(to, j.node, j.id);
	r = look(&j, err);
	*ret = r == 1 ? MIRROR_UNDER_WAY : MIRROR_UNKNOWN;
	if (r)
		return r < 0 ? r : 0;
	r = look_at_disk(&j, &there, err);
	if (there)
		*ret = MIRROR_DONE;
	return r;
}

/* Returns 1, 0: it is done, or a negative errno. */
static int begin_or_join(struct job *j, struct error *err)
{
	enum mirror_state state = MIRROR_UNKNOWN;
	json_t *answer = NULL;
	struct guest_disk d;
	int r = mirror_find(j->m->qmp, j->m->to, &state, err);

	if (r < 0 || state != MIRROR_UNKNOWN)
		return r < 0 ? r : state == MIRROR_UNDER_WAY;
	r = guest_disk_find(j->m->qmp, j->m->device, &d, &answer, err);
	if (r >= 0)
		r = begin(j, &d, err);
	json_decref(answer);
	return r < 0 ? r : 1;
}

int mirror_run(const struct mirror *m, struct error *err)
{
	struct job j = { .m = m, .progress.quiet = m->quiet };
	int r;

	mirror_names(m->to, j.node, j.id);
	stop_catch();
	r = begin_or_join(&j, err);
	if (r == 1)
		r = wait_for_end(&j, err);
	if (j.progress.total_bytes)
		progress_end(&j.progress);
	return r;
}
