/* SPDX-License-Identifier: BSD-3-Clause */
#include "glance/http/json-body.h"
#include "glance/http/json-in.h"

json_t *request_json(struct request *q)
{
	struct error err = { 0 };
	json_t *value;

	if (!q->body.len) {
		respond_error(q, 400, "Body expected in request.");
		return NULL;
	}
	if (json_in_parse(q->body.text, q->body.len, &value, &err) < 0) {
		respond_failure(q, &err);
		return NULL;
	}
	return value;
}

json_t *request_json_object(struct request *q)
{
	json_t *value = request_json(q);

	if (value && !json_is_object(value)) {
		respond_error(q, 400,
			      "A JSON object is expected in the request body.");
		json_decref(value);
		return NULL;
	}
	return value;
}

void respond_json_value(struct request *q, unsigned int status, json_t *value)
{
	char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;

	json_decref(value);
	respond_text(q, status, "application/json", text);
}
