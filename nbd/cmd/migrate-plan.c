/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "nbd/cmd/cmd.h"
#include "nbd/cmd/migrate-plan.h"
#include "nbd/cmd/mirror.h"
#include "nbd/text.h"

/* ---- what would be done ---- */

/* A word of a command line. */
static void put_word(const char *option, const char *word)
{
	CLEANUP(freep) char *safe = text_shell_word(word);

	printf(" %s ", option);
	cmd_put(stdout, safe ? safe : word);
}

static void print_own_way(const struct migrate_plan *p,
			  const struct guest_disk *d)
{
	printf("  platter migrate %s",
	       guest_disk_is_blocked(d) ? "unblock" : "push");
	put_word("--qmp", p->qmp_path);
	put_word("--device", d->node);
	put_word("--to", p->to);
	if (p->from)
		put_word("--from", p->from);
	printf("\n");
}

/* A name of what an overlay has alone, see export-name.h, encoded or not. */
static bool is_part_of_disk(const char *file)
{
	return strstr(file, "@:own") || strstr(file, "%40%3Aown") ||
	       strstr(file, "@%3Aown");
}

/* libvirt's target names are the guest's, which QEMU does not know. */
static void print_libvirt_way(const struct migrate_plan *p,
			      const struct guest_disk *d)
{
	if (is_part_of_disk(d->file)) {
		printf("  not with libvirt while the guest's disk is called "
		       "@:own: virsh blockcopy clears\n"
		       "  the target first, and what comes from the image "
		       "would be lost\n");
		return;
	}
	printf("  with libvirt (DOMAIN, and vda as its XML has it):\n"
	       "    virsh blockcopy DOMAIN vda --xml disk.xml --reuse-external "
	       "--transient-job --wait --pivot\n"
	       "    # disk.xml: <disk type='network'><driver name='qemu' "
	       "type='raw'/>\n"
	       "    #   <source protocol='nbd' name='EXPORT'><host name='HOST' "
	       "port='10809'/>\n"
	       "    #   <reconnect delay='60'/></source></disk>, of ");
	cmd_put(stdout, p->to);
	printf("\n    virsh migrate --live --persistent DOMAIN "
	       "qemu+ssh://HOST/system --xml there.xml\n");
}

static int print_disk(void *opaque, const struct guest_disk *d)
{
	const struct migrate_plan *p = opaque;
	char size[TEXT_BYTES_MAX];

	if (p->device && strcmp(p->device, d->node) != 0 &&
	    strcmp(p->device, d->name) != 0)
		return 0;
	cmd_put(stdout, d->name);
	printf(" (node ");
	cmd_put(stdout, d->node);
	printf("): %s, ", text_bytes(size, (uint64_t)d->bytes));
	cmd_put(stdout, d->format);
	printf("%s\n", guest_disk_is_blocked(d)
			       ? ", with which QEMU does not migrate a guest"
			       : "");
	print_own_way(p, d);
	print_libvirt_way(p, d);
	return 0;
}

int migrate_plan_print(const struct migrate_plan *plan, struct qmp *q,
		       struct error *err)
{
	json_t *answer = NULL;
	int r = qmp_run(q, "query-block", NULL, &answer, err);

	if (r >= 0)
		guest_disk_each(answer, print_disk, (void *)(uintptr_t)plan);
	json_decref(answer);
	return r;
}

/* ---- what is under way ---- */

static int add_disk(void *opaque, const struct guest_disk *d)
{
	json_t *j = json_pack(
		"{s:s, s:s, s:s, s:s%, s:I, s:b, s:b}", "disk", d->name, "node",
		d->node, "format", d->format, "file", d->file,
		guest_disk_shown_bytes(d), "size", d->bytes, "blocked",
		guest_disk_is_blocked(d), "moved", mirror_is_ours(d->node));

	return json_array_append_new(opaque, j);
}

int migrate_status_add(struct qmp *q, json_t *j, struct error *err)
{
	json_t *disks = json_array(), *jobs = json_array();
	json_t *answer = NULL, *all = NULL, *one;
	int r = qmp_run(q, "query-block", NULL, &answer, err);
	const char *id;
	size_t i;

	if (r >= 0)
		guest_disk_each(answer, add_disk, disks);
	if (r >= 0)
		r = qmp_run(q, "query-jobs", NULL, &all, err);
	json_array_foreach(all, i, one) {
		id = json_string_value(json_object_get(one, "id"));
		if (id && mirror_is_ours(id))
			json_array_append(jobs, one);
	}
	json_decref(answer);
	json_decref(all);
	json_object_set_new(j, "disks", disks);
	json_object_set_new(j, "jobs", jobs);
	return r;
}

static const char *text_at(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

static json_int_t number_at(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static void print_status_disk(const json_t *d)
{
	cmd_put(stdout, text_at(d, "disk"));
	printf(" (node ");
	cmd_put(stdout, text_at(d, "node"));
	printf("): ");
	cmd_put(stdout, text_at(d, "format"));
	printf("%s%s\n",
	       json_is_true(json_object_get(d, "blocked"))
		       ? ", which does not migrate"
		       : "",
	       json_is_true(json_object_get(d, "moved")) ? ", moved" : "");
}

static void print_status_export(const json_t *e)
{
	const json_t *overlay = json_object_get(e, "overlay");

	printf("export \"");
	cmd_put(stdout, text_at(e, "name"));
	printf("\": %" PRId64 " connections",
	       (int64_t)number_at(e, "connections"));
	if (overlay)
		printf(", epoch %" PRId64,
		       (int64_t)number_at(overlay, "epoch"));
	if (json_is_true(json_object_get(overlay, "pulling")))
		printf(", is being pulled");
	printf("\n");
}

void migrate_status_print(const json_t *j)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(j, "disks"), i, one) {
		print_status_disk(one);
	}
	json_array_foreach(json_object_get(j, "jobs"), i, one) {
		printf("job ");
		cmd_put(stdout, text_at(one, "id"));
		printf(": %s, %" PRId64 " of %" PRId64 " bytes\n",
		       text_at(one, "status"),
		       (int64_t)number_at(one, "current-progress"),
		       (int64_t)number_at(one, "total-progress"));
	}
	json_array_foreach(
		json_object_get(json_object_get(j, "server"), "exports"), i,
		one) {
		print_status_export(one);
	}
}
