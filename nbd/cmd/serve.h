/* SPDX-License-Identifier: BSD-3-Clause */
/* platter serve: what its parts share. */
#ifndef NBD_CMD_SERVE_H
#define NBD_CMD_SERVE_H

#include "nbd/cmd/cmd.h"
#include "nbd/keep.h"
#include "nbd/server/listen.h"
#include "nbd/server/supervise.h"

/* Where to listen, as it was told: a path, or what listen_at() takes. */
struct serve_place {
	bool is_path;
	const char *text;
};

struct serve {
	struct cmd cmd;
	struct serve_place places[LISTEN_FDS_MAX];
	unsigned int n_places;
	const char *address, *port; /* one more place, where one is given */
	struct socket_rights rights; /* of all unix sockets' files ... */
	bool has_rights; /* ... else as the umask says */
	const char *threads;
	const char *tls, *tls_certificates, *tls_psk, *tls_access;
	const char *plugin;
	const char *via;
	const char *pid_file;
	bool has_pid_file; /* it is there, and ours */
	bool by_nbdkit; /* else by the server of our own */
	bool tls_verify_peer;
	bool once;
	bool fork; /* to the background, when it is ready */
	char **extra; /* for nbdkit */
	int n_extra;

	struct listener listener;
	struct keep kept;
	json_t *images; /* name, image, format, virtual-size of each */
	json_t *exports; /* name and description of each, ours first */
	bool abortable; /* this nbdkit, by a client */
	char nbdkit[32]; /* its version */

	bool taken_over; /* from one of before: the user has been told */
	int ready_fd; /* whom to tell that all is ready; -1: nobody */
	char *program; /* this command's file, to be run in our place */
	char **argv; /* as we were called */
};

bool serve_needs_tls(const struct serve *s);

/*
 * serve-ready.c: looks at what is served, while the server opens it, and without
 * its key; nothing of it stays in memory. What is wrong with it the server says.
 */
void serve_look(struct serve *s);

/* Tells the user where it is served, and how to use it. */
void serve_print_ready(struct serve *s, pid_t pid);

/* serve-nbdkit.c: which nbdkit is it? */
void serve_look_at_nbdkit(struct serve *s);

/* What is to be said of it, when it is ready. */
void serve_warn_of_nbdkit(const struct serve *s);

/* The plugin to run it with. To be freed. */
char *serve_find_plugin(const struct serve *s);

/* Are its options such as it may be given? As cmd_option(). */
int serve_check_extra(const struct serve *s);

/* What it says of each request is wanted. */
bool serve_is_debugging(const struct serve *s);

/*
 * serve-process.c: with --fork, goes on in a child. Returns -1 there, and in the
 * parent, when the child serves or has ended, the exit status.
 */
int serve_go_behind(struct serve *s);

/* It is ready: writes the pid file, and lets go of the terminal. */
void serve_came_up(struct serve *s);
void serve_went_down(const struct serve *s);

/*
 * Is there something that can run in our place, and takes our options? Else says
 * why not.
 */
bool serve_can_be_replaced(struct serve *s);

/* Is that asked of us? Then all is done when the options have been looked at. */
bool serve_is_trial(void);

/* Runs it, with our sockets and what is kept. Returns if it could not. */
void serve_replace(struct serve *s);

/* Has one been running in our place? */
bool serve_is_taking_over(void);

/* Takes what serve_replace() left. 1: it has left something; or as usual. */
int serve_take_over(struct serve *s, struct error *err);

#endif
