/* SPDX-License-Identifier: BSD-3-Clause */
/* platter image: a client of the image service, or of a Glance. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd/cmd/cmd-image.h"
#include "nbd/cmd/stop.h"
#include "nbd/text.h"

#define PAGE	   1000
#define MIB_MAX	   2147483647L
#define TYPE_PATCH "application/openstack-images-v2.1-json-patch"

static const char help[] =
	"usage: platter image list   [options]\n"
	"       platter image show   [options] IMAGE\n"
	"       platter image create [options] [FILE]\n"
	"       platter image set    [options] IMAGE\n"
	"       platter image delete [options] IMAGE...\n"
	"       platter image save   [options] IMAGE FILE\n"
	"       platter image share  [options] IMAGE [PROJECT...]\n"
	"\n"
	"Asks an image service, platter's or Glance. IMAGE is an id, or a name that one\n"
	"image has.\n"
	"\n"
	"list    those that --name, --status, --visibility, --owner and --tag fit\n"
	"create  uploads FILE (\"-\": standard input), named as it without its ending;\n"
	"        its disk format is recognised. Without FILE there are no data yet\n"
	"save    downloads to FILE (\"-\": standard output) and compares the digest\n"
	"share   lets projects use it, or shows which may\n"
	"\n"
	"  -u, --url URL            http://HOST:9292, https://..., unix:PATH (default:\n"
	"                           $PLATTER_URL, or the like of OpenStack's clients)\n"
	"      --token-file FILE    a token (default: $OS_TOKEN)\n"
	"      --name NAME\n"
	"      --id UUID            create: the image's id\n"
	"      --disk-format X      qcow2, raw, vmdk ...\n"
	"      --container-format X (default: bare)\n"
	"      --visibility X       private, shared, community or public\n"
	"      --min-disk GIB, --min-ram MIB\n"
	"      --protected BOOL, --hidden BOOL\n"
	"      --property KEY=VALUE create, set: may repeat\n"
	"      --unset KEY          set: a property that is to go; may repeat\n"
	"      --tag TAG            may repeat\n"
	"      --owner PROJECT, --status STATUS\n"
	"                           list; share: accepted, rejected or pending\n"
	"      --remove             share: not any more\n"
	"      --raw                save: the decoded disk (platter's service)\n"
	"      --overwrite          save: replace FILE\n"
	"      --json               for programs\n"
	"  -q, --quiet              show no progress\n"
	"  -h, --help\n";

enum {
	OPT_TOKEN = CMD_VERB,
	OPT_FIELD, /* a text of the image */
	OPT_NUMBER,
	OPT_BOOL,
	OPT_PROPERTY,
	OPT_UNSET,
	OPT_TAG,
	OPT_STATUS,
	OPT_REMOVE,
	OPT_RAW,
	OPT_OVERWRITE,
};

/* ---- which image ---- */

/* ---- what is printed ---- */

static void print_row(const json_t *image)
{
	json_t *size = json_object_get(image, "size");
	char bytes[TEXT_BYTES_MAX] = "-";
	size_t i;
	static const struct {
		const char *key;
		int width;
	} columns[] = { { "id", 36 },
			{ "status", 11 },
			{ "disk_format", 7 },
			{ "visibility", 10 } };

	for (i = 0; i < ARRAY_SIZE(columns); i++) {
		const char *s = image_text(image, columns[i].key);
		int pad = columns[i].width - (int)strlen(s);

		cmd_put(stdout, *s ? s : "-");
		printf("%*s  ", pad > 0 ? pad - !*s : 0, "");
	}
	if (json_is_integer(size))
		text_bytes(bytes, (uint64_t)json_integer_value(size));
	printf("%10s  ", bytes);
	cmd_put(stdout, image_text(image, "name"));
	putchar('\n');
}

/* ---- commands ---- */

static int list_page(struct image_cmd *c, const char *path, json_t *all,
		     char **ret_next, struct error *err)
{
	json_t *j = api_get(&c->api, path, err);
	const char *next = NULL;
	json_t *image;
	size_t i;

	if (!j)
		return err->code;
	json_array_foreach(json_object_get(j, "images"), i, image) {
		if (c->cmd.json)
			json_array_append(all, image);
		else
			print_row(image);
	}
	next = json_string_value(json_object_get(j, "next"));
	*ret_next = next && *next == '/' ? strdup(next) : NULL;
	json_decref(j);
	return 0;
}

static int image_list(struct image_cmd *c, int n, char **operands)
{
	struct error err = { 0 };
	char *path = NULL;
	json_t *all;
	int r = 0;

	if (n)
		return cmd_usage(&c->cmd, "\"%s\" is too many", *operands);
	all = json_array();
	if (asprintf(&path, "/v2/images?%slimit=%d",
		     c->query.text ? c->query.text : "", PAGE) < 0)
		path = NULL;
	if (!c->cmd.json)
		printf("%-36s  %-11s  %-7s  %-10s  %10s  %s\n", "ID", "STATUS",
		       "FORMAT", "VISIBILITY", "SIZE", "NAME");
	while (path && r >= 0) {
		char *next = NULL;

		r = list_page(c, path, all, &next, &err);
		free(path);
		path = next;
	}
	if (r < 0) {
		json_decref(all);
		return cmd_fail(&err);
	}
	if (c->cmd.json)
		cmd_json_print(all, JSON_INDENT(4));
	else
		json_decref(all);
	return STATUS_OK;
}

static int image_show(struct image_cmd *c, int n, char **operands)
{
	CLEANUP(freep) char *path = NULL;
	struct error err = { 0 };
	json_t *image = NULL;

	if (n != 1)
		return cmd_usage(&c->cmd, "show takes one IMAGE");
	path = image_path(c, operands[0], &err);
	if (path)
		image = api_get(&c->api, path, &err);
	if (!image)
		return cmd_fail(&err);
	image_print(c, image);
	return STATUS_OK;
}

int image_add_tags(struct image_cmd *c, const char *path, struct error *err)
{
	json_t *tag;
	size_t i;

	json_array_foreach(c->tags, i, tag) {
		CLEANUP(freep)
		char *safe = text_percent(json_string_value(tag), "");
		CLEANUP(freep) char *at = NULL;

		if (!safe || asprintf(&at, "%s/tags/%s", path, safe) < 0) {
			at = NULL;
			return error_set(err, -ENOMEM, 0, "out of memory");
		}
		if (api_do(&c->api, "PUT", at, err) < 0)
			return err->code;
	}
	return 0;
}

/* As a pointer of RFC 6901: "/KEY", with '~' and '/' as ~0 and ~1. */
static json_t *pointer(const char *key)
{
	struct text_buf b = { 0 };
	json_t *j;

	text_add_char(&b, '/');
	for (; *key; key++) {
		if (*key == '~' || *key == '/')
			text_add(&b, *key == '~' ? "~0" : "~1");
		else
			text_add_char(&b, *key);
	}
	j = b.failed ? NULL : json_string(b.text);
	text_buf_done(&b);
	return j;
}

static json_t *patch_of(const struct image_cmd *c)
{
	json_t *patch = json_array(), *value, *name;
	const char *key;
	size_t i;

	json_object_foreach(c->fields, key, value)
		json_array_append_new(
			patch, json_pack("{s:s, s:o, s:O}", "op", "add", "path",
					 pointer(key), "value", value));
	json_array_foreach(c->unset, i, name)
		json_array_append_new(
			patch, json_pack("{s:s, s:o}", "op", "remove", "path",
					 pointer(json_string_value(name))));
	return patch;
}

static int image_set(struct image_cmd *c, int n, char **operands)
{
	CLEANUP(freep) char *path = NULL;
	struct error err = { 0 };
	json_t *image = NULL;

	if (n != 1)
		return cmd_usage(&c->cmd, "set takes one IMAGE");
	if (!json_object_size(c->fields) && !json_array_size(c->unset) &&
	    !json_array_size(c->tags))
		return cmd_usage(&c->cmd, "set what?");
	path = image_path(c, operands[0], &err);
	if (path && image_add_tags(c, path, &err) >= 0)
		image = api_send(&c->api, "PATCH", path, TYPE_PATCH,
				 patch_of(c), &err);
	if (!image)
		return cmd_fail(&err);
	if (c->cmd.json)
		image_print(c, image);
	else
		json_decref(image);
	return STATUS_OK;
}

static int image_delete(struct image_cmd *c, int n, char **operands)
{
	int status = STATUS_OK, i;

	if (!n)
		return cmd_usage(&c->cmd, "delete takes IMAGE...");
	for (i = 0; i < n; i++) {
		struct error err = { 0 };
		CLEANUP(freep) char *path = image_path(c, operands[i], &err);

		if (!path || api_do(&c->api, "DELETE", path, &err) < 0)
			status = cmd_fail(&err);
	}
	return status;
}

static int print_members(struct image_cmd *c, const char *members,
			 struct error *err)
{
	json_t *j = api_get(&c->api, members, err), *list, *m;
	size_t i;

	if (!j)
		return err->code;
	list = json_object_get(j, "members");
	if (c->cmd.json) {
		cmd_json_print(json_incref(list), JSON_INDENT(4));
	} else {
		json_array_foreach(list, i, m) {
			printf("%-10s ", image_text(m, "status"));
			cmd_put(stdout, image_text(m, "member_id"));
			putchar('\n');
		}
	}
	json_decref(j);
	return 0;
}

static int share_with(struct image_cmd *c, const char *members,
		      const char *project, struct error *err)
{
	CLEANUP(freep) char *safe = text_percent(project, "");
	CLEANUP(freep) char *one = NULL;
	json_t *answer;

	if (!safe || asprintf(&one, "%s/%s", members, safe) < 0) {
		one = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (c->remove)
		return api_do(&c->api, "DELETE", one, err);
	answer =
		c->status
			? api_send(&c->api, "PUT", one, NULL,
				   json_pack("{s:s}", "status", c->status), err)
			: api_send(&c->api, "POST", members, NULL,
				   json_pack("{s:s}", "member", project), err);
	json_decref(answer);
	return answer ? 0 : err->code;
}

static int image_share(struct image_cmd *c, int n, char **operands)
{
	CLEANUP(freep) char *path = NULL;
	CLEANUP(freep) char *members = NULL;
	struct error err = { 0 };
	int r = 0, i;

	if (!n)
		return cmd_usage(&c->cmd, "share takes IMAGE [PROJECT...]");
	path = image_path(c, operands[0], &err);
	if (!path || asprintf(&members, "%s/members", path) < 0) {
		members = NULL;
		return cmd_fail(&err);
	}
	if (n == 1)
		r = print_members(c, members, &err);
	for (i = 1; i < n && r >= 0; i++)
		r = share_with(c, members, operands[i], &err);
	return r < 0 ? cmd_fail(&err) : STATUS_OK;
}

/* ---- options ---- */

static const struct option options[] = {
	{ "url", required_argument, NULL, 'u' },
	{ "token-file", required_argument, NULL, OPT_TOKEN },
	{ "name", required_argument, NULL, OPT_FIELD },
	{ "id", required_argument, NULL, OPT_FIELD },
	{ "disk-format", required_argument, NULL, OPT_FIELD },
	{ "container-format", required_argument, NULL, OPT_FIELD },
	{ "visibility", required_argument, NULL, OPT_FIELD },
	{ "owner", required_argument, NULL, OPT_FIELD },
	{ "min-disk", required_argument, NULL, OPT_NUMBER },
	{ "min-ram", required_argument, NULL, OPT_NUMBER },
	{ "protected", required_argument, NULL, OPT_BOOL },
	{ "hidden", required_argument, NULL, OPT_BOOL },
	{ "property", required_argument, NULL, OPT_PROPERTY },
	{ "unset", required_argument, NULL, OPT_UNSET },
	{ "tag", required_argument, NULL, OPT_TAG },
	{ "status", required_argument, NULL, OPT_STATUS },
	{ "remove", no_argument, NULL, OPT_REMOVE },
	{ "raw", no_argument, NULL, OPT_RAW },
	{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
	{ "json", no_argument, NULL, CMD_JSON },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* For list, all that is asked of an image is a filter. */
static void filter(struct image_cmd *c, const char *key, const char *value)
{
	text_addf(&c->query, "%s=", key);
	text_add_percent(&c->query, value);
	text_add_char(&c->query, '&');
}

static int set_field(struct image_cmd *c, const char *option, json_t *value)
{
	char key[32];
	char *dash;

	snprintf(key, sizeof(key), "%s%s",
		 !strcmp(option, "hidden") ? "os_" : "", option);
	for (dash = key; (dash = strchr(dash, '-'));)
		*dash = '_';
	if (json_is_string(value) && strcmp(option, "id") != 0)
		filter(c, key, json_string_value(value));
	if (!value || json_object_set_new(c->fields, key, value))
		return cmd_usage(&c->cmd, "--%s: not UTF-8", option);
	return -1;
}

static int set_number(struct image_cmd *c, const char *option)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(optarg, &end, 10);
	if (errno || *end || end == optarg || n < 0 || n > MIB_MAX)
		return cmd_usage(&c->cmd, "--%s is a number, not \"%s\"",
				 option, optarg);
	return set_field(c, option, json_integer(n));
}

static int set_bool(struct image_cmd *c, const char *option)
{
	bool on = !strcmp(optarg, "true");

	if (!on && strcmp(optarg, "false") != 0)
		return cmd_usage(&c->cmd, "--%s is true or false, not \"%s\"",
				 option, optarg);
	return set_field(c, option, json_boolean(on));
}

static int set_property(struct image_cmd *c)
{
	const char *equals = strchr(optarg, '=');
	CLEANUP(freep) char *key = NULL;

	if (!equals || equals == optarg)
		return cmd_usage(&c->cmd, "--property is KEY=VALUE, not \"%s\"",
				 optarg);
	key = strndup(optarg, (size_t)(equals - optarg));
	if (!key ||
	    json_object_set_new(c->fields, key, json_string(equals + 1)))
		return cmd_usage(&c->cmd, "--property: not UTF-8");
	filter(c, key, equals + 1);
	return -1;
}

static int add_word(struct image_cmd *c, json_t *list)
{
	return json_array_append_new(list, json_string(optarg))
		       ? cmd_usage(&c->cmd, "\"%s\" is not UTF-8", optarg)
		       : -1;
}

static int take_option(struct image_cmd *c, int opt, int at, char **argv)
{
	const char *name = opt >= CMD_VERB ? options[at].name : NULL;

	switch (opt) {
	case 'u':
		c->where.url = optarg;
		return -1;
	case 'q':
		c->quiet = true;
		return -1;
	case OPT_TOKEN:
		c->where.token_file = optarg;
		return -1;
	case OPT_FIELD:
		return set_field(c, name, json_string(optarg));
	case OPT_NUMBER:
		return set_number(c, name);
	case OPT_BOOL:
		return set_bool(c, name);
	case OPT_PROPERTY:
		return set_property(c);
	case OPT_UNSET:
		return add_word(c, c->unset);
	case OPT_TAG:
		filter(c, "tag", optarg);
		return add_word(c, c->tags);
	case OPT_STATUS:
		filter(c, "status", optarg);
		c->status = optarg;
		return -1;
	case OPT_REMOVE:
		c->remove = true;
		return -1;
	case OPT_RAW:
		c->raw = true;
		return -1;
	case OPT_OVERWRITE:
		c->overwrite = true;
		return -1;
	default:
		return cmd_option(&c->cmd, opt, argv);
	}
}

static const struct {
	const char *name;
	int (*run)(struct image_cmd *c, int n, char **operands);
} commands[] = {
	{ "list", image_list },	    { "show", image_show },
	{ "create", image_create }, { "set", image_set },
	{ "delete", image_delete }, { "save", image_save },
	{ "share", image_share },
};

static int carry_out(struct image_cmd *c, int n, char **operands)
{
	struct error err = { 0 };
	size_t i;

	for (i = 0; n && i < ARRAY_SIZE(commands); i++) {
		if (strcmp(operands[0], commands[i].name) != 0)
			continue;
		if (api_open(&c->where, &c->api, &err) < 0)
			return cmd_fail(&err);
		stop_catch();
		return commands[i].run(c, n - 1, operands + 1);
	}
	return cmd_usage(&c->cmd, "list, show, create, set, delete, save or "
				  "share is wanted");
}

static void image_cmd_done(struct image_cmd *c)
{
	api_done(&c->api);
	json_decref(c->fields);
	json_decref(c->unset);
	json_decref(c->tags);
	text_buf_done(&c->query);
	cmd_done(&c->cmd);
}

static int run_image(int argc, char **argv)
{
	CLEANUP(image_cmd_done)
	struct image_cmd c = { .fields = json_object(),
			       .unset = json_array(),
			       .tags = json_array() };
	int opt, at = 0, status;

	cmd_init(&c.cmd, &verb_image);
	while ((opt = getopt_long(argc, argv, ":u:qh", options, &at)) != -1) {
		status = take_option(&c, opt, at, argv);
		if (status >= 0)
			return status;
	}
	return carry_out(&c, argc - optind, argv + optind);
}

const struct verb verb_image = {
	.name = "image",
	.summary = "images of an image service",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_image,
};
