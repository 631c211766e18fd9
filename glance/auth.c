/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "glance/auth.h"

struct auth {
	int unused;
};

void identity_done(struct identity *id)
{
	size_t i;

	for (i = 0; i < id->n_roles; i++)
		free(id->roles[i]);
	free(id->roles);
	free(id->project);
	free(id->user);
	*id = (struct identity){ 0 };
}

int auth_new(const char *spec, bool local, struct auth **ret, struct error *err)
{
	if (spec && strcmp(spec, "none"))
		return error_set(err, -EINVAL, 0, "auth: \"%s\" is not known",
				 spec);
	if (!local)
		return error_set(err, -EPERM, 0,
				 "auth=none is for loopback addresses and unix "
				 "sockets only");
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

void auth_free(struct auth *a)
{
	free(a);
}

int auth_identify(struct auth *a, const struct request *q, struct identity *ret,
		  struct error *err)
{
	*ret = (struct identity){ .admin = true,
				  .member = true,
				  .reader = true };
	return 0;
}
