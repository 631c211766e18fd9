/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The tokens of those whose tasks ask other services in their name. They are in
 * memory alone, until the task begins: a server that begins a task anew has
 * none for it.
 */
#ifndef GLANCE_TASK_TOKENS_H
#define GLANCE_TASK_TOKENS_H

#include "iouring/error.h"

/* Of tasks that have not begun; half of them may be one project's. */
#define TASK_TOKENS_MAX 1024U

struct task_tokens;

int task_tokens_new(struct task_tokens **ret, struct error *err);
void task_tokens_free(struct task_tokens *t); /* NULL is fine */

/*
 * Copies @token, for the task with the id @task; @project (NULL: none) is
 * whose it is. -EAGAIN: there are TASK_TOKENS_MAX, or half of that of
 * @project's. Any thread; waits for nothing.
 */
int task_tokens_put(struct task_tokens *t, const char *task,
		    const char *project, const char *token, struct error *err);
/*
 * The token of @task, which is forgotten here: for task_token_freep(). NULL:
 * there is none. Any thread.
 */
char *task_tokens_take(struct task_tokens *t, const char *task);

/* Overwrites it first. For CLEANUP(). */
void task_token_freep(char **token);

#endif
