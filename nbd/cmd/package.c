/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/chain.h"
#include "formats/containers/manifest.h"
#include "formats/containers/package.h"
#include "formats/report.h"
#include "iouring/util.h"
#include "nbd/cmd/operand.h"
#include "nbd/cmd/package.h"
#include "nbd/cmd/progress.h"
#include "nbd/text.h"

/* A disk that lies in its image's file alone is in no container. */
static bool may_be_one(const struct cmd *c, const struct layer *top)
{
	return !top->ops->made && (place_is_inner(top->place) ||
				   strcmp(top->path, c->config.image) != 0);
}

void package_of(const struct cmd *c, int r, const struct layers *ls,
		struct container **ret)
{
	struct open_options options;

	*ret = NULL;
	config_open_options(&c->config, &options);
	if (!operand_is_more(c->config.image) &&
	    (r < 0 || may_be_one(c, ls->layers[0])))
		chain_open_container(c->config.image, &options, ret, NULL);
}

/* ---- disks ---- */

/* What its own header says. False: it cannot be opened. */
static bool own_size(const struct cmd *cmd, const struct member *m,
		     const char **ret_format, uint64_t *ret_bytes)
{
	CLEANUP(chain_done) struct chain chain = { 0 };
	enum reference_verdict verdict;
	struct open_options options;

	config_open_options(&cmd->config, &options);
	options.member = m->name;
	options.format = NULL;
	chain_open_partial(cmd->config.image, &options, &chain, &verdict, NULL);
	if (!chain.depth)
		return false;
	*ret_format = chain.layers[0]->ops->name;
	*ret_bytes = chain.layers[0]->bytes;
	return true;
}

/* A disk, by the descriptor and by itself. */
struct disk {
	const struct member *member; /* NULL: it is empty, or not there */
	const struct ovf_disk *described; /* NULL: there is no descriptor */
	const char *format; /* NULL: it cannot be opened */
	uint64_t bytes;
};

struct machine {
	const struct cmd *cmd;
	const struct container *container;
	struct ovf ovf;
	const struct member *descriptor; /* NULL: there is none */
	struct error reason; /* why it cannot be read */
	void (*each)(struct machine *m, const struct disk *d);
	json_t *json;
};

static void look(struct machine *m, struct disk *d)
{
	if (d->member && !own_size(m->cmd, d->member, &d->format, &d->bytes))
		d->format = NULL;
	m->each(m, d);
}

static int look_at_found(void *opaque, const struct member *member)
{
	struct disk d = { .member = member };

	look(opaque, &d);
	return 0;
}

static void each_disk(struct machine *m)
{
	size_t i;

	if (!m->ovf.n_disks)
		container_each_disk(m->container, look_at_found, m);
	for (i = 0; i < m->ovf.n_disks; i++) {
		struct disk d = { .described = &m->ovf.disks[i] };

		d.member = package_disk(m->container, &m->ovf, m->descriptor,
					d.described);
		look(m, &d);
	}
}

static void machine_open(struct machine *m, const struct cmd *cmd,
			 const struct container *c)
{
	*m = (struct machine){ .cmd = cmd, .container = c };
	if (package_read(c, &m->ovf, &m->descriptor, &m->reason) >= 0 ||
	    !m->descriptor)
		error_clear(&m->reason);
}

/* ---- for people ---- */

static void put_field(const char *before, const char *text)
{
	if (!text)
		return;
	fputs(before, stdout);
	cmd_put(stdout, text);
}

static void print_system(const struct ovf_system *s)
{
	char buf[TEXT_BYTES_MAX];

	fputs("machine: ", stdout);
	cmd_put(stdout, s->name ? s->name : s->id ? s->id : "(without a name)");
	if (s->cpus)
		printf(", %" PRIu64 " CPU%s", s->cpus, s->cpus == 1 ? "" : "s");
	if (s->memory_bytes)
		printf(", %s of memory", text_bytes(buf, s->memory_bytes));
	put_field(", firmware ", s->firmware);
	put_field(", ", s->os);
	putchar('\n');
}

static const char *file_of(const struct disk *d)
{
	if (d->member)
		return d->member->name;
	return d->described && d->described->file_ref ? "(not there)"
						      : "(empty)";
}

static void print_disk(struct machine *m, const struct disk *d)
{
	char buf[TEXT_BYTES_MAX];

	fputs("    ", stdout);
	if (d->described)
		cmd_put(stdout, d->described->id ? d->described->id : "-");
	if (d->described)
		fputs("  ", stdout);
	cmd_put(stdout, file_of(d));
	if (d->format)
		printf("  %s, %s", d->format, text_bytes(buf, d->bytes));
	else if (d->member)
		fputs("  cannot be opened", stdout);
	if (d->described && d->described->capacity &&
	    !(d->format && d->described->capacity == d->bytes))
		printf(" (the descriptor says %s)",
		       text_bytes(buf, d->described->capacity));
	putchar('\n');
}

void package_print(const struct cmd *cmd, const struct container *c)
{
	struct machine m;
	size_t i;

	machine_open(&m, cmd, c);
	m.each = print_disk;
	printf("container: %s, %zu member%s\n", c->ops->what, c->n,
	       c->n == 1 ? "" : "s");
	put_field("descriptor: ", m.reason.code ? m.reason.msg : NULL);
	if (m.reason.code)
		putchar('\n');
	for (i = 0; i < m.ovf.n_systems; i++)
		print_system(&m.ovf.systems[i]);
	for (i = 0; i < m.ovf.n_networks; i++)
		put_field(i ? ", " : "networks: ", m.ovf.networks[i]);
	puts(m.ovf.n_networks ? "\ndisks:" : "disks:");
	each_disk(&m);
	ovf_done(&m.ovf);
}

/* ---- for programs ---- */

static json_t *text_or_null(const char *text)
{
	return text ? report_text(text) : json_null();
}

static json_t *number_or_null(uint64_t n)
{
	return n ? json_integer((json_int_t)n) : json_null();
}

static json_t *system_json(const struct ovf_system *s)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "id",
			 text_or_null(s->id), "name", text_or_null(s->name),
			 "os", text_or_null(s->os), "firmware",
			 text_or_null(s->firmware), "cpus",
			 number_or_null(s->cpus), "memory",
			 number_or_null(s->memory_bytes));
}

static void add_disk(struct machine *m, const struct disk *d)
{
	const struct ovf_disk *o = d->described;

	json_array_append_new(
		m->json,
		json_pack("{s:o, s:o, s:o, s:o, s:o}", "id",
			  text_or_null(o ? o->id : NULL), "member",
			  text_or_null(d->member ? d->member->name : NULL),
			  "format", text_or_null(d->format), "virtual-size",
			  d->format ? json_integer((json_int_t)d->bytes)
				    : json_null(),
			  "described-size",
			  number_or_null(o ? o->capacity : 0)));
}

void package_json(const struct cmd *cmd, const struct container *c, json_t *j)
{
	json_t *systems = json_array(), *networks = json_array();
	struct machine m;
	size_t i;

	machine_open(&m, cmd, c);
	m.each = add_disk;
	m.json = json_array();
	for (i = 0; i < m.ovf.n_systems; i++)
		json_array_append_new(systems, system_json(&m.ovf.systems[i]));
	for (i = 0; i < m.ovf.n_networks; i++)
		json_array_append_new(networks, report_text(m.ovf.networks[i]));
	each_disk(&m);
	json_object_set_new(
		j, "container",
		json_pack("{s:s, s:I, s:o, s:o, s:o, s:o}", "type",
			  c->ops->name, "members", (json_int_t)c->n, "machines",
			  systems, "networks", networks, "disks", m.json,
			  "descriptor-error",
			  text_or_null(m.reason.code ? m.reason.msg : NULL)));
	ovf_done(&m.ovf);
}

/* ---- check ---- */

struct checker {
	struct manifest_report report;
	struct progress progress;
	bool verbose;
	json_t *findings;
};

static void say_finding(struct manifest_report *r, bool well, const char *line)
{
	struct checker *k = container_of(r, struct checker, report);

	if (well && !k->verbose)
		return;
	progress_end(&k->progress);
	if (k->findings) {
		json_array_append_new(k->findings, report_text(line));
		return;
	}
	cmd_put(stdout, line);
	putchar('\n');
}

static void tell_progress(struct manifest_report *r, uint64_t done_bytes)
{
	struct checker *k = container_of(r, struct checker, report);

	if (!k->progress.total_bytes)
		progress_begin(&k->progress, "check", r->total_bytes, false);
	progress_tell(&k->progress, done_bytes);
}

int package_check(const struct container *c, bool verbose, json_t *findings)
{
	struct checker k = { .report = { .say = say_finding,
					 .tell = tell_progress },
			     .progress.quiet = true,
			     .verbose = verbose,
			     .findings = findings };
	struct error err = { 0 };
	int r = manifest_check(c, &k.report, &err);

	progress_end(&k.progress);
	if (r < 0) {
		error_prefix(&err, "%s", c->path);
		return cmd_fail(&err);
	}
	if (!findings && !k.report.has_manifest)
		puts("There is no manifest: nothing tells whether the files "
		     "are whole.");
	else if (!findings && !k.report.wrong)
		printf("The %u file%s of the manifest are what it says.\n",
		       k.report.files, k.report.files == 1 ? "" : "s");
	else if (!findings)
		printf("%u finding%s against the manifest.\n", k.report.wrong,
		       k.report.wrong == 1 ? "" : "s");
	return k.report.wrong ? STATUS_CORRUPT : STATUS_OK;
}
