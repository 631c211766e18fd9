/* SPDX-License-Identifier: BSD-3-Clause */
/* platter migrate: a disk moves to another place while its machine runs. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "nbd/cmd/cmd.h"
#include "nbd/cmd/control-client.h"
#include "nbd/cmd/migrate-plan.h"
#include "nbd/cmd/mirror.h"
#include "nbd/cmd/qemu-options.h"
#include "nbd/export-name.h"

static const char help[] =
	"usage: platter migrate plan    --qmp PATH --to URI [--from URI] [--device X]\n"
	"       platter migrate unblock --qmp PATH --to URI [--device X]\n"
	"                               [--rate RATE]\n"
	"       platter migrate push    --qmp PATH --to URI [--from URI | --top]\n"
	"                               [--device X] [--rate RATE]\n"
	"       platter migrate pull    --control PATH [--from URI] [--prepare]\n"
	"                               [--base] [--rate RATE] EXPORT\n"
	"       platter migrate fence   --control PATH [--release] EXPORT EPOCH\n"
	"       platter migrate status  [--qmp PATH] [--control PATH] [--json]\n"
	"\n"
	"Moves the disk of a running QEMU guest.\n"
	"\n"
	"plan      prints what would be done, for QEMU, for libvirt; changes nothing\n"
	"unblock   swaps a disk whose format keeps the guest from migrating (vmdk,\n"
	"          vhdx, vdi, vhd, qcow, parallels) to the NBD export URI\n"
	"push      the same to another host: its server has an overlay over its own\n"
	"          copy of the image. With --from, what the overlay there holds is all\n"
	"          that is sent; with --top, what the guest's top layer holds\n"
	"pull      EXPORT of this host's server is the disk URI of another, at once;\n"
	"          all of it is fetched, and the other needed no more; without --from\n"
	"          one that was interrupted is gone on with\n"
	"fence     clients of EXPORT that came with a lower epoch write no more\n"
	"status    disks, jobs and exports\n"
	"\n"
	"Whatever is interrupted leaves the disk where it was, and is gone on with by\n"
	"asking for it again.\n"
	"\n"
	"      --qmp PATH       QEMU's monitor socket (-qmp unix:PATH,server,nowait)\n"
	"      --device X       which disk: device, qdev id or node (default: the only)\n"
	"      --to URI         where it shall be: nbd[s]://HOST/EXPORT,\n"
	"                       nbd[s]+unix:///EXPORT?socket=PATH\n"
	"      --from URI       the guest's export, +NAME of a server of platter whose\n"
	"                       image the destination has, too\n"
	"      --top            the destination has what lies below the top layer\n"
	"      --tls-certificates DIR  QEMU's keys for nbds\n"
	"      --control PATH   a server's control socket\n"
	"      --rate RATE      at most so many bytes a second are copied\n"
	"      --base           pull: the image below EXPORT is the one below URI, a\n"
	"                       name +NAME@:base.., too: only what differs is fetched\n"
	"      --prepare        pull: only make EXPORT, which is not read before the\n"
	"                       same without this\n"
	"      --release        fence: and let its file go, for another server\n"
	"      --json           for programs\n"
	"  -q, --quiet          show no progress\n"
	"  -h, --help\n";

struct migrate {
	struct cmd cmd;
	const char *qmp_path, *control;
	const char *device, *to, *from, *tls_dir;
	uint64_t rate; /* 0: no limit */
	bool top, release, prepare, base, quiet;
	struct qmp *qmp; /* open where qmp_path is given */
};

#define TLS_ID "platter-tls"

/* Keys that are there already will do. */
static void give_keys(const struct migrate *m)
{
	if (m->tls_dir)
		qmp_run(m->qmp, "object-add",
			json_pack("{s:s, s:s, s:s, s:s, s:b}", "qom-type",
				  "tls-creds-x509", "id", TLS_ID, "dir",
				  m->tls_dir, "endpoint", "client",
				  "verify-peer", true),
			NULL, NULL);
}

static int move(const struct migrate *m, const char *to, enum mirror_what what,
		struct error *err)
{
	const struct mirror mirror = { .qmp = m->qmp,
				       .device = m->device,
				       .to = to,
				       .what = what,
				       .rate = m->rate,
				       .tls = m->tls_dir ? TLS_ID : NULL,
				       .quiet = m->quiet || m->cmd.json };

	give_keys(m);
	return mirror_run(&mirror, err);
}

static int run_unblock(struct migrate *m, int n, char **operands,
		       struct error *err)
{
	return move(m, m->to, MIRROR_ALL, err);
}

/* A disk that is not --from must not be taken for it. */
static int check_from(struct migrate *m, struct error *err)
{
	json_t *answer = NULL;
	struct guest_disk d;
	int r = guest_disk_find(m->qmp, m->device, &d, &answer, err);

	if (r >= 0 && !qemu_file_is_export(d.file, m->from))
		r = error_set(err, -EINVAL, 0,
			      "the guest's disk is %.*s, and not what --from "
			      "says",
			      (int)guest_disk_shown_bytes(&d), d.file);
	json_decref(answer);
	return r;
}

/* The guest is on @own when it returns 0; it was, or was on --from. */
static int move_to_own(struct migrate *m, const char *own, struct error *err)
{
	enum mirror_state state;
	int r = mirror_find(m->qmp, own, &state, err);

	if (r >= 0 && state == MIRROR_UNKNOWN)
		r = check_from(m, err);
	return r < 0 ? r : move(m, own, MIRROR_NOTHING, err);
}

/*
 * By way of the same disk's name that tells what is its own: what is left out by
 * the copy from there is the image's, which the destination has.
 */
static int push_own(struct migrate *m, struct error *err)
{
	char node[MIRROR_NAME_BYTES], job[MIRROR_NAME_BYTES];
	CLEANUP(freep) char *own = NULL;
	enum mirror_state state;
	int r = qemu_uri_with_state(m->from, EXPORT_STATE_OWN, &own, err);

	if (r >= 0)
		r = mirror_find(m->qmp, m->to, &state, err);
	if (r >= 0 && state == MIRROR_UNKNOWN) {
		mirror_names(own, node, job);
		r = move_to_own(m, own, err);
		m->device = node;
	}
	return r < 0 ? r : move(m, m->to, MIRROR_ALLOCATED, err);
}

static int run_push(struct migrate *m, int n, char **operands,
		    struct error *err)
{
	if (m->from)
		return push_own(m, err);
	return move(m, m->to, m->top ? MIRROR_ALLOCATED : MIRROR_ALL, err);
}

static int ask(const struct migrate *m, json_t *question, struct error *err)
{
	json_t *answer = control_ask(m->control, question, "migrate",
				     m->quiet || m->cmd.json, err);

	json_decref(answer);
	return answer ? 0 : err->code;
}

static int run_fence(struct migrate *m, int n, char **operands,
		     struct error *err)
{
	uint64_t epoch;
	int r;

	if (!control_epoch(operands[1], &epoch) || !epoch)
		return error_set(err, -EINVAL, 0,
				 "EPOCH is a number above 0, not \"%s\"",
				 operands[1]);
	r = ask(m,
		json_pack("{s:s, s:s, s:I}", "command", "fence", "export",
			  operands[0], "epoch", (json_int_t)epoch),
		err);
	if (r < 0 || !m->release)
		return r;
	return ask(m,
		   json_pack("{s:s, s:s}", "command", "close", "export",
			     operands[0]),
		   err);
}

/* Until the end of it: the server stops when we do. */
static int run_pull(struct migrate *m, int n, char **operands,
		    struct error *err)
{
	json_t *question =
		json_pack("{s:s, s:s, s:I}", "command", "pull", "export",
			  operands[0], "rate", (json_int_t)m->rate);

	if (m->from)
		json_object_set_new(question, "from", json_string(m->from));
	if (m->prepare)
		json_object_set_new(question, "prepare", json_true());
	if (m->base)
		json_object_set_new(question, "base", json_true());
	return ask(m, question, err);
}

static int run_plan(struct migrate *m, int n, char **operands,
		    struct error *err)
{
	const struct migrate_plan plan = {
		.qmp_path = m->qmp_path,
		.device = m->device,
		.to = m->to,
		.from = m->from,
	};

	return migrate_plan_print(&plan, m->qmp, err);
}

static int run_status(struct migrate *m, int n, char **operands,
		      struct error *err)
{
	json_t *j = json_object();
	int r = m->qmp ? migrate_status_add(m->qmp, j, err) : 0;

	if (r >= 0 && m->control) {
		json_t *list = control_ask(
			m->control, json_pack("{s:s}", "command", "list"), "",
			true, err);

		if (list)
			json_object_set_new(j, "server", list);
		else
			r = err->code;
	}
	if (r >= 0 && m->cmd.json)
		cmd_json_print(json_incref(j), JSON_INDENT(4));
	else if (r >= 0)
		migrate_status_print(j);
	json_decref(j);
	return r;
}

static const struct action {
	const char *name;
	int (*run)(struct migrate *m, int n, char **operands,
		   struct error *err);
	int operands;
	bool wants_qmp, wants_to, wants_control;
} actions[] = {
	{ "plan", run_plan, 0, .wants_qmp = true, .wants_to = true },
	{ "unblock", run_unblock, 0, .wants_qmp = true, .wants_to = true },
	{ "push", run_push, 0, .wants_qmp = true, .wants_to = true },
	{ "pull", run_pull, 1, .wants_control = true },
	{ "fence", run_fence, 2, .wants_control = true },
	{ "status", run_status, 0, .wants_qmp = false },
};

static const struct action *find_action(int n, char **operands)
{
	size_t i;

	for (i = 0; n && i < ARRAY_SIZE(actions); i++)
		if (!strcmp(operands[0], actions[i].name))
			return &actions[i];
	return NULL;
}

enum {
	OPT_QMP = CMD_VERB,
	OPT_CONTROL,
	OPT_DEVICE,
	OPT_TO,
	OPT_FROM,
	OPT_TOP,
	OPT_TLS,
	OPT_RATE,
	OPT_RELEASE,
	OPT_PREPARE,
	OPT_BASE,
};

/* The option's text goes there; NULL: it is none with a text. */
static const char **text_option(struct migrate *m, int opt)
{
	switch (opt) {
	case OPT_QMP:
		return &m->qmp_path;
	case OPT_CONTROL:
		return &m->control;
	case OPT_DEVICE:
		return &m->device;
	case OPT_TO:
		return &m->to;
	case OPT_FROM:
		return &m->from;
	case OPT_TLS:
		return &m->tls_dir;
	default:
		return NULL;
	}
}

/* Returns as cmd_option(). */
static int take_option(struct migrate *m, int opt, char **argv)
{
	const char **text = text_option(m, opt);

	if (text) {
		*text = optarg;
		return -1;
	}
	switch (opt) {
	case OPT_TOP:
		m->top = true;
		return -1;
	case OPT_RELEASE:
		m->release = true;
		return -1;
	case OPT_PREPARE:
		m->prepare = true;
		return -1;
	case OPT_BASE:
		m->base = true;
		return -1;
	case 'q':
		m->quiet = true;
		return -1;
	case OPT_RATE:
		return config_size(optarg, &m->rate) && m->rate <= INT64_MAX
			       ? -1
			       : cmd_usage(&m->cmd,
					   "--rate %s: is no number of bytes",
					   optarg);
	default:
		return cmd_option(&m->cmd, opt, argv);
	}
}

/* What is missing; NULL: nothing. */
static const char *find_missing(const struct migrate *m, const struct action *a,
				int n)
{
	if (a->wants_qmp && !m->qmp_path)
		return "which guest? --qmp PATH is missing";
	if (a->wants_to && !m->to)
		return "where to? --to URI is missing";
	if (a->wants_control && !m->control)
		return "which server? --control PATH is missing";
	if (!a->wants_qmp && !a->wants_control && !m->qmp_path && !m->control)
		return "of what? --qmp PATH or --control PATH is missing";
	if (n != a->operands)
		return a->operands ? "EXPORT is missing, or more than that "
				     "is there"
				   : "there are operands too many";
	if (m->from && m->top)
		return "--from and --top are two ways of one thing";
	return NULL;
}

static int act(struct migrate *m, int n, char **operands)
{
	const struct action *a = find_action(n, operands);
	const char *missing = a ? find_missing(m, a, n - 1)
				: "plan, unblock, push, pull, fence or status "
				  "is wanted";
	struct error err = { 0 };
	int r = 0;

	if (missing)
		return cmd_usage(&m->cmd, "%s", missing);
	if (m->qmp_path)
		r = qmp_open(m->qmp_path, &m->qmp, &err);
	if (r >= 0)
		r = a->run(m, n - 1, operands + 1, &err);
	return r < 0 ? cmd_fail(&err) : STATUS_OK;
}

static int run_migrate(int argc, char **argv)
{
	static const struct option options[] = {
		{ "qmp", required_argument, NULL, OPT_QMP },
		{ "control", required_argument, NULL, OPT_CONTROL },
		{ "device", required_argument, NULL, OPT_DEVICE },
		{ "to", required_argument, NULL, OPT_TO },
		{ "from", required_argument, NULL, OPT_FROM },
		{ "top", no_argument, NULL, OPT_TOP },
		{ "tls-certificates", required_argument, NULL, OPT_TLS },
		{ "rate", required_argument, NULL, OPT_RATE },
		{ "release", no_argument, NULL, OPT_RELEASE },
		{ "prepare", no_argument, NULL, OPT_PREPARE },
		{ "base", no_argument, NULL, OPT_BASE },
		{ "json", no_argument, NULL, CMD_JSON },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct migrate m = { 0 };
	int opt, status = -1;

	cmd_init(&m.cmd, &verb_migrate);
	while (status < 0 &&
	       (opt = getopt_long(argc, argv, ":qh", options, NULL)) != -1)
		status = take_option(&m, opt, argv);
	if (status < 0)
		status = act(&m, argc - optind, argv + optind);
	qmp_close(m.qmp);
	cmd_done(&m.cmd);
	return status;
}

const struct verb verb_migrate = {
	.name = "migrate",
	.summary = "moves the disk of a running QEMU guest",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_migrate,
};
