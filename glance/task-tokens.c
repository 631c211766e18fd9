/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "glance/task-tokens.h"
#include "iouring/util.h"

struct entry {
	struct entry *next;
	char task[37];
	char *project;
	char *token;
};

struct task_tokens {
	pthread_mutex_t lock; /* the rest */
	struct entry *entries;
};

void task_token_freep(char **token)
{
	if (*token)
		explicit_bzero(*token, strlen(*token));
	free(*token);
}

static void entry_free(struct entry *e)
{
	if (!e)
		return;
	task_token_freep(&e->token);
	free(e->project);
	free(e);
}

int task_tokens_new(struct task_tokens **ret, struct error *err)
{
	struct task_tokens *t = calloc(1, sizeof(*t));

	if (!t)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&t->lock, NULL);
	*ret = t;
	return 0;
}

void task_tokens_free(struct task_tokens *t)
{
	struct entry *e;

	if (!t)
		return;
	while ((e = t->entries)) {
		t->entries = e->next;
		entry_free(e);
	}
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static struct entry *entry_new(const char *task, const char *project,
			       const char *token)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	snprintf(e->task, sizeof(e->task), "%s", task);
	e->project = strdup(project);
	e->token = strdup(token);
	if (e->project && e->token)
		return e;
	entry_free(e);
	return NULL;
}

/* Lock is held. */
static bool is_full(const struct task_tokens *t, const char *project)
{
	unsigned int all = 0, same = 0;
	const struct entry *e;

	for (e = t->entries; e; e = e->next) {
		all++;
		same += !strcmp(e->project, project);
	}
	return all >= TASK_TOKENS_MAX || same >= TASK_TOKENS_MAX / 2;
}

int task_tokens_put(struct task_tokens *t, const char *task,
		    const char *project, const char *token, struct error *err)
{
	struct entry *e = entry_new(task, project ? project : "", token);
	bool full;

	if (!e)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_lock(&t->lock);
	full = is_full(t, e->project);
	if (!full) {
		e->next = t->entries;
		t->entries = e;
	}
	pthread_mutex_unlock(&t->lock);
	if (!full)
		return 0;
	entry_free(e);
	return error_set(err, -EAGAIN, 0,
			 "%u imports from other services wait, or %u of this "
			 "project",
			 TASK_TOKENS_MAX, TASK_TOKENS_MAX / 2);
}

char *task_tokens_take(struct task_tokens *t, const char *task)
{
	struct entry **at, *e;
	char *token = NULL;

	pthread_mutex_lock(&t->lock);
	for (at = &t->entries; *at && strcmp((*at)->task, task) != 0;
	     at = &(*at)->next)
		;
	e = *at;
	if (e) {
		*at = e->next;
		token = TAKE_PTR(e->token);
	}
	pthread_mutex_unlock(&t->lock);
	entry_free(e);
	return token;
}
