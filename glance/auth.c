/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/auth.h"
#include "glance/http/http.h"
#include "glance/keystone.h"
#include "glance/token-table.h"

/* One of the two, or neither: everybody is an administrator. */
struct auth {
	struct token_table *tokens;
	struct keystone *keystone;
	const char *service_roles; /* by commas */
	char *challenge;
};

static int open_none(const char *spec, bool local, struct error *err)
{
	if (local || !strcmp(spec, "none-i-know"))
		return 0;
	return error_set(err, -EPERM, 0,
			 "auth=none is for loopback addresses and unix "
			 "sockets: auth=tokens:FILE, auth=keystone:URL, or, if "
			 "anybody may do anything, auth=none-i-know");
}

static int open_kind(struct auth *a, const char *spec, bool local,
		     const struct auth_options *o, struct error *err)
{
	const char *uri = "";
	int r;

	if (!strcmp(spec, "none") || !strcmp(spec, "none-i-know")) {
		r = open_none(spec, local, err);
	} else if (!strncmp(spec, "tokens:", 7)) {
		r = token_table_open(spec + 7, &a->tokens, err);
	} else if (!strncmp(spec, "keystone:", 9)) {
		uri = spec + 9;
		r = keystone_new(uri, o->account, o->waiters_max, &a->keystone,
				 err);
	} else {
		r = error_set(err, -EINVAL, 0,
			      "auth: \"%s\" is none of none, tokens:FILE, "
			      "keystone:URL",
			      spec);
	}
	if (r >= 0 && asprintf(&a->challenge, "Keystone uri=\"%s\"", uri) < 0) {
		a->challenge = NULL;
		r = error_set(err, -ENOMEM, 0, "out of memory");
	}
	return r;
}

int auth_new(const char *spec, bool local, const struct auth_options *o,
	     struct auth **ret, struct error *err)
{
	struct auth *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return error_set(err, -ENOMEM, 0, "out of memory");
	a->service_roles = o->service_roles ? o->service_roles : "service";
	r = open_kind(a, spec ? spec : "none", local, o, err);
	if (r < 0) {
		auth_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

struct keystone *auth_keystone(const struct auth *a)
{
	return a->keystone;
}

void auth_stop(struct auth *a)
{
	if (a)
		keystone_stop(a->keystone);
}

void auth_free(struct auth *a)
{
	if (!a)
		return;
	token_table_free(a->tokens);
	keystone_free(a->keystone);
	free(a->challenge);
	free(a);
}

bool auth_asks(const struct auth *a)
{
	return a->tokens || a->keystone;
}

const char *auth_challenge(const struct auth *a)
{
	return a->challenge;
}

static bool has_a_role(const struct identity *id, const char *roles)
{
	size_t i, len;

	while (*roles) {
		len = strcspn(roles, ",");
		for (i = 0; i < id->n_roles; i++)
			if (len == strlen(id->roles[i]) &&
			    !strncasecmp(id->roles[i], roles, len))
				return true;
		roles += len + (roles[len] == ',');
	}
	return false;
}

/*
 * As keystonemiddleware has it: a service's token that is none is a request
 * that is nobody's; one without the role is of no use, and does no harm.
 */
static int look_at_service(struct auth *a, const struct request *q,
			   const char *peer, bool *ret_forgive,
			   struct error *err)
{
	const char *token = request_header(q, "X-Service-Token");
	const struct keystone_wish w = { .token = token, .peer = peer };
	struct identity service;
	int r;

	if (!token || !*token)
		return 0;
	r = keystone_find(a->keystone, &w, &service, err);
	if (r < 0)
		return r;
	*ret_forgive = has_a_role(&service, a->service_roles);
	identity_done(&service);
	return 0;
}

static int ask_keystone(struct auth *a, const struct request *q,
			const char *token, struct identity *ret,
			struct error *err)
{
	char peer[64];
	struct keystone_wish w = { .token = token, .peer = peer };
	int r;

	request_peer(q, peer, sizeof(peer));
	r = look_at_service(a, q, peer, &w.forgive, err);
	return r < 0 ? r : keystone_find(a->keystone, &w, ret, err);
}

int auth_identify(struct auth *a, const struct request *q, struct identity *ret,
		  struct error *err)
{
	const char *token;

	if (!auth_asks(a)) {
		*ret = (struct identity){ .admin = true,
					  .member = true,
					  .reader = true };
		return 0;
	}
	token = request_header(q, "X-Auth-Token");
	if (!token || !*token)
		return error_set(err, -EACCES, 0, "no token was given");
	return a->tokens ? token_table_find(a->tokens, token, ret, err)
			 : ask_keystone(a, q, token, ret, err);
}
