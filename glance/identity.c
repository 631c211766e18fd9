/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "glance/identity.h"

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

static int add_role(struct identity *id, const char *name)
{
	char **roles = reallocarray(id->roles, id->n_roles + 1, sizeof(*roles));

	if (!roles)
		return -ENOMEM;
	id->roles = roles;
	roles[id->n_roles] = strdup(name);
	if (!roles[id->n_roles])
		return -ENOMEM;
	id->n_roles++;
	if (!strcasecmp(name, "admin"))
		id->admin = id->member = true;
	if (!strcasecmp(name, "member") || !strcasecmp(name, "_member_"))
		id->member = true;
	id->reader = true;
	return 0;
}

static int copy_member(const json_t *who, const char *key, char **ret)
{
	const char *text = json_string_value(json_object_get(who, key));

	*ret = text ? strdup(text) : NULL;
	return text && !*ret ? -ENOMEM : 0;
}

int identity_from_json(const json_t *who, const char *project, const char *user,
		       struct identity *ret, struct error *err)
{
	const json_t *roles = json_object_get(who, "roles");
	struct identity id = { 0 };
	int r = copy_member(who, project, &id.project);
	size_t i;

	if (r >= 0)
		r = copy_member(who, user, &id.user);
	for (i = 0; i < json_array_size(roles) && r >= 0; i++) {
		const char *name = json_string_value(json_array_get(roles, i));

		r = name ? add_role(&id, name) : 0;
	}
	if (r < 0) {
		identity_done(&id);
		return error_set(err, r, 0, "out of memory");
	}
	*ret = id;
	return 0;
}
