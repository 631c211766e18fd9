/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/session.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "iouring/nowait.h"
#include "nbd/descriptors.h"
#include "nbd/export-name.h"

/* Of one answer at once, which may end early; longer walks are not done at once. */
#define TOLD_MAX 256U

static pthread_mutex_t budgets_lock = PTHREAD_MUTEX_INITIALIZER;

/* A client that is refused may come again at once, and again. */
static struct line_budget refusals = { .burst = 50, .per_second = 5 };

/*
 * Damage is EIO on the wire, whatever it was: the client is not to blame, and
 * NBD knows few other errors.
 */
static int wire_error(int code)
{
	switch (code) {
	case -ENOMEM:
	case -ENOSPC:
	case -EPERM:
	case -EINVAL:
	case -EOPNOTSUPP:
	case -ESHUTDOWN:
		return -code;
	default:
		return EIO;
	}
}

/* @f->err is set; *@budget is that of its kind. */
static int fault(struct fault *f, struct line_budget *budget)
{
	f->wire = wire_error(f->err.code);
	f->untold = 0;
	pthread_mutex_lock(&budgets_lock);
	f->tell = line_budget_take(budget, now_nsec(), &f->untold);
	pthread_mutex_unlock(&budgets_lock);
	return -1;
}

/* The same of a request, which is asked again and again: told once. */
static void request_fault(struct fault *f, struct export *e)
{
	f->wire = wire_error(f->err.code);
	f->untold = 0;
	pthread_mutex_lock(&budgets_lock);
	f->tell = line_budget_take_new(&e->failures, f->err.msg, now_nsec(),
				       &f->untold);
	pthread_mutex_unlock(&budgets_lock);
}

int session_admit(struct fault *ret_fault)
{
	ret_fault->err.code = 0;
	return descriptors_check(false, &ret_fault->err) < 0
		       ? fault(ret_fault, &refusals)
		       : 0;
}

int session_open(const struct config *c, const char *name,
		 const struct peer *peer, struct connection **ret,
		 struct fault *ret_fault)
{
	ret_fault->err.code = 0;
	return connection_open(c, name, peer, ret, &ret_fault->err) < 0
		       ? fault(ret_fault, &refusals)
		       : 0;
}

int session_refuse(const char *name, struct fault *ret_fault)
{
	ret_fault->err.code = 0;
	export_name_unknown(name, &ret_fault->err);
	return fault(ret_fault, &refusals);
}

int session_turn_away(struct fault *f)
{
	return fault(f, &refusals);
}

static void describe(const struct export *e, char *ret, size_t ret_bytes)
{
	const char *kind = e->from ? "changes of the " : "";

	if (export_is_writable(e))
		kind = "overlay of the ";
	else if (!e->live && !e->from)
		kind = "earlier state of the ";
	snprintf(ret, ret_bytes, "%s%s image", kind,
		 e->image->chain.layers[0]->ops->name);
}

bool session_traits(struct connection *c, struct session_traits *ret)
{
	struct export *e = connection_enter(c);
	uint64_t unit;

	if (!e)
		return false;
	unit = e->overlay ? overlay_unit_bytes(e->overlay)
			  : e->image->chain.layers[0]->unit_bytes;
	*ret = (struct session_traits){
		.bytes = export_bytes(e),
		.writable = export_is_writable(e),
		/* A flush is of the overlay, whoever wrote; but each may have
		 * its own. */
		.multi_conn = !(e->overlay && e->lone),
		/* Any byte may be asked for; whole clusters are cheapest. */
		.block_min = 1,
		.block_preferred =
			(uint32_t)max_u64(4096, min_u64(unit, 64 << 10)),
		.block_max = SESSION_REQUEST_BYTES_MAX,
	};
	describe(e, ret->description, sizeof(ret->description));
	connection_leave(c);
	return true;
}

/* A request under way. */
struct call {
	struct connection *connection;
	struct export *export;
	enum traffic_op op;
	uint32_t bytes;
	uint64_t began_nsec;
	struct fault *fault;
};

static bool begin(struct call *r, struct connection *c, enum traffic_op op,
		  uint32_t bytes, struct fault *f)
{
	r->connection = c;
	r->export = connection_enter(c);
	r->op = op;
	r->bytes = bytes;
	r->fault = f;
	f->err.code = 0;
	if (!r->export) {
		error_set(&f->err, -ESHUTDOWN, 0,
			  "the export was closed by the administrator");
		fault(f, &refusals);
		return false;
	}
	r->began_nsec = now_nsec();
	return true;
}

/* It was not let: the fault says which export. */
static int end_refused(const struct call *r)
{
	traffic_note(&r->export->traffic, r->op, r->bytes,
		     now_nsec() - r->began_nsec, true);
	request_fault(r->fault, r->export);
	connection_leave(r->connection);
	return -1;
}

/* @code: what it ended with; the fault says why. */
static int end_uncounted(const struct call *r, int code)
{
	if (code < 0) {
		/* That of the command line has no name, but a file. */
		if (*r->export->name)
			error_prefix(&r->fault->err, "export \"%s\"",
				     r->export->name);
		request_fault(r->fault, r->export);
	}
	connection_leave(r->connection);
	return code < 0 ? -1 : 0;
}

static int end(const struct call *r, int code)
{
	traffic_note(&r->export->traffic, r->op, r->bytes,
		     now_nsec() - r->began_nsec, code < 0);
	return end_uncounted(r, code);
}

/* The same for one that changes the disk. */
static bool begin_change(struct call *r, struct connection *c,
			 enum traffic_op op, uint32_t bytes, struct fault *f)
{
	if (!begin(r, c, op, bytes, f))
		return false;
	if (connection_will_change(c, &f->err) >= 0)
		return true;
	end_refused(r);
	return false;
}

static int end_change(const struct call *r, int code)
{
	connection_has_changed(r->connection);
	return end(r, code);
}

static int read_export(struct export *e, void *buf, uint32_t len, uint64_t off,
		       struct zero_runs *zeroes, struct error *err)
{
	export_note_read(e, off, len);
	return e->overlay ? overlay_read_sparse(e->overlay, buf, len, off,
						zeroes, err)
			  : image_read_sparse(e->image, buf, len, off, zeroes,
					      err);
}

int session_read(struct connection *c, void *buf, uint32_t len, uint64_t off,
		 struct zero_runs *zeroes, struct fault *ret_fault)
{
	struct call q;

	if (!begin(&q, c, TRAFFIC_READ, len, ret_fault))
		return -1;
	return end(&q, read_export(q.export, buf, len, off, zeroes,
				   &ret_fault->err));
}

enum session_try session_try_read(struct connection *c, void *buf, uint32_t len,
				  uint64_t off, struct zero_runs *zeroes,
				  struct session_later *later)
{
	struct export *e = connection_enter(c);
	uint64_t began_nsec;
	int r;

	if (!e)
		return SESSION_CANNOT;
	began_nsec = now_nsec();
	engine_nowait = true;
	/* What an overlay has may be somewhere else when the read ends. */
	engine_later = later && !e->overlay ? &later->read : NULL;
	r = read_export(e, buf, len, off, zeroes, NULL);
	engine_later = NULL;
	engine_nowait = false;
	if (r == BATCH_LATER && later) {
		later->export = e;
		later->began_nsec = began_nsec;
		return SESSION_LATER;
	}
	if (!r)
		traffic_note(&e->traffic, TRAFFIC_READ, len,
			     now_nsec() - began_nsec, false);
	connection_leave(c);
	return r ? SESSION_CANNOT : SESSION_DONE;
}

void session_read_later_ended(struct connection *c, struct session_later *later,
			      uint32_t len, int code)
{
	if (!code)
		traffic_note(&later->export->traffic, TRAFFIC_READ, len,
			     now_nsec() - later->began_nsec, false);
	connection_leave(c);
}

int session_write(struct connection *c, const void *buf, uint32_t len,
		  uint64_t off, unsigned int flags, struct fault *ret_fault)
{
	struct call q;

	if (!begin_change(&q, c, TRAFFIC_WRITE, len, ret_fault))
		return -1;
	return end_change(&q,
			  overlay_write(q.export->overlay, buf, len, off,
					flags & SESSION_FUA, &ret_fault->err));
}

int session_zero(struct connection *c, uint32_t len, uint64_t off,
		 unsigned int flags, struct fault *ret_fault)
{
	unsigned int how = 0;
	struct call q;

	if (!begin_change(&q, c, TRAFFIC_ZERO, len, ret_fault))
		return -1;
	if (flags & SESSION_MAY_TRIM)
		how |= OVERLAY_MAY_TRIM;
	if (flags & SESSION_FUA)
		how |= OVERLAY_DURABLE;
	if (flags & SESSION_FAST)
		how |= OVERLAY_FAST;
	return end_change(&q, overlay_zero(q.export->overlay, off, len, how,
					   &ret_fault->err));
}

int session_trim(struct connection *c, uint32_t len, uint64_t off,
		 unsigned int flags, struct fault *ret_fault)
{
	struct call q;

	if (!begin_change(&q, c, TRAFFIC_TRIM, len, ret_fault))
		return -1;
	return end_change(&q,
			  overlay_trim(q.export->overlay, off, len,
				       flags & SESSION_FUA, &ret_fault->err));
}

int session_flush(struct connection *c, struct fault *ret_fault)
{
	struct call q;

	if (!begin(&q, c, TRAFFIC_FLUSH, 0, ret_fault))
		return -1;
	return end(&q, overlay_flush(q.export->overlay, &ret_fault->err));
}

int session_prefetch(struct connection *c, uint32_t len, uint64_t off,
		     struct fault *ret_fault)
{
	struct call q;
	int r = 0;

	if (!begin(&q, c, TRAFFIC_CACHE, len, ret_fault))
		return -1;
	/* What an overlay has was written a moment ago. */
	if (!q.export->overlay)
		r = image_prefetch(q.export->image, off, len, &ret_fault->err);
	return end(&q, r);
}

int session_each_context(struct connection *c,
			 int (*each)(void *opaque, const char *name),
			 void *opaque, struct fault *ret_fault)
{
	struct call q;
	int r;

	if (!begin(&q, c, TRAFFIC_STATUS, 0, ret_fault))
		return -1;
	r = context_each(q.export, each, opaque, &ret_fault->err);
	return end_uncounted(&q, ret_fault->err.code ? r : 0);
}

int session_open_context(struct connection *c, const char *name,
			 struct context **ret, struct fault *ret_fault)
{
	struct call q;

	if (!begin(&q, c, TRAFFIC_STATUS, 0, ret_fault))
		return -1;
	context_open(q.export, name, ret, &ret_fault->err);
	if (*ret)
		connection_keep_context(c, *ret);
	return end_uncounted(&q, ret_fault->err.code);
}

int session_extents(struct connection *c, const struct context *x, uint32_t len,
		    uint64_t off, bool one,
		    int (*each)(void *opaque, uint64_t off, uint64_t len,
				unsigned int state),
		    void *opaque, struct fault *ret_fault)
{
	struct call q;
	int r;

	if (!begin(&q, c, TRAFFIC_STATUS, len, ret_fault))
		return -1;
	r = context_walk(q.export, x, off, len, one, each, opaque,
			 &ret_fault->err);
	if (ret_fault->err.code)
		return end(&q, ret_fault->err.code);
	end(&q, 0);
	return r < 0 ? 1 : 0;
}

/* What has been told, until it is known that all of it can be. */
struct told {
	size_t n;
	struct {
		uint64_t off, len;
		unsigned int state;
	} all[TOLD_MAX];
};

static int keep_told(void *opaque, uint64_t off, uint64_t len,
		     unsigned int state)
{
	struct told *t = opaque;

	t->all[t->n].off = off;
	t->all[t->n].len = len;
	t->all[t->n].state = state;
	return ++t->n == TOLD_MAX;
}

bool session_try_extents(struct connection *c, const struct context *x,
			 uint32_t len, uint64_t off, bool one,
			 int (*each)(void *opaque, uint64_t off, uint64_t len,
				     unsigned int state),
			 void *opaque)
{
	struct export *e = connection_enter(c);
	uint64_t began_nsec = now_nsec();
	struct told t = { .n = 0 };
	size_t i;
	int r;

	if (!e)
		return false;
	engine_nowait = true;
	r = context_may_try(e, x)
		    ? context_walk(e, x, off, len, one, keep_told, &t, NULL)
		    : -EAGAIN;
	engine_nowait = false;
	for (i = 0; r >= 0 && i < t.n; i++)
		if (each(opaque, t.all[i].off, t.all[i].len, t.all[i].state))
			break;
	if (r >= 0)
		traffic_note(&e->traffic, TRAFFIC_STATUS, len,
			     now_nsec() - began_nsec, false);
	connection_leave(c);
	return r >= 0;
}
