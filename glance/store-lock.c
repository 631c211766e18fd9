/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "glance/log.h"
#include "glance/store-lock.h"

#define LOCK_NAME   "lock"
#define CLOCK_NAME  "lock.clock"
#define LEASE_BYTES 512
/* Without locks: two that begin at once see which of them came last. */
#define SETTLE_USEC 300000

struct lease {
	struct store_holder holder;
	char machine[40]; /* /etc/machine-id; "": it has none */
	char boot[40];
	char pids[40]; /* whose process numbers these are */
	char nonce[24]; /* of this taking */
};

struct store_lock {
	int folder, fd;
	char *path;
	bool locked; /* else the lease is all there is */
	pid_t taker;
	struct lease lease;
	atomic_bool lost;

	/* Guards ending. */
	pthread_mutex_t guard;
	pthread_cond_t wake;
	bool ending, beating;
	pthread_t thread;
};

/* ---- the lease ---- */

/* The first word of a file, "" where there is none. */
static void read_word(const char *path, char *ret, size_t ret_bytes)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, ret_bytes - 1);

	ret[n < 0 ? 0 : n] = '\0';
	ret[strcspn(ret, " \n")] = '\0';
}

static void make_nonce(struct lease *ret)
{
	uint64_t nonce = 0;

	if (getrandom(&nonce, sizeof(nonce), 0) != sizeof(nonce))
		nonce = now_nsec() ^ (uint64_t)getpid() << 32;
	snprintf(ret->nonce, sizeof(ret->nonce), "%016" PRIx64, nonce);
}

static void make_lease(struct lease *ret)
{
	ssize_t n;

	*ret = (struct lease){ .holder = { .pid = getpid(),
					   .since_sec = time(NULL) } };
	if (gethostname(ret->holder.host, sizeof(ret->holder.host) - 1) < 0 ||
	    !*ret->holder.host)
		strcpy(ret->holder.host, "localhost");
	ret->holder.host[strcspn(ret->holder.host, " \n")] = '\0';
	read_word("/etc/machine-id", ret->machine, sizeof(ret->machine));
	read_word("/proc/sys/kernel/random/boot_id", ret->boot,
		  sizeof(ret->boot));
	n = readlink("/proc/self/ns/pid", ret->pids, sizeof(ret->pids) - 1);
	ret->pids[n < 0 ? 0 : n] = '\0';
	make_nonce(ret);
}

/* Words are "-" where they would be empty. */
static const char *word(const char *text)
{
	return *text ? text : "-";
}

static int write_lease(int fd, const struct lease *l)
{
	char text[LEASE_BYTES];
	int n;

	memset(text, '\n', sizeof(text));
	n = snprintf(text, sizeof(text),
		     "platter-store-lock 1\nhost %s\npid %" PRId64
		     "\nsince %" PRId64 "\nmachine %s\nboot %s\npids %s\n"
		     "nonce %s\n",
		     l->holder.host, l->holder.pid, l->holder.since_sec,
		     word(l->machine), word(l->boot), word(l->pids), l->nonce);
	text[n] = '\n';
	return pwrite(fd, text, sizeof(text), 0) == (ssize_t)sizeof(text)
		       ? 0
		       : -EIO;
}

static void unword(char *text)
{
	if (!strcmp(text, "-"))
		*text = '\0';
}

/* False: there is none, or what is there is none of ours. */
static bool read_lease(int fd, struct lease *ret)
{
	char text[LEASE_BYTES + 1];
	ssize_t n = pread(fd, text, LEASE_BYTES, 0);
	struct lease l = { 0 };

	if (n <= 0)
		return false;
	text[n] = '\0';
	if (sscanf(text,
		   "platter-store-lock 1 host %64s pid %" SCNd64
		   " since %" SCNd64 " machine %39s boot %39s pids %39s "
		   "nonce %23s",
		   l.holder.host, &l.holder.pid, &l.holder.since_sec, l.machine,
		   l.boot, l.pids, l.nonce) != 7)
		return false;
	unword(l.machine);
	unword(l.boot);
	unword(l.pids);
	*ret = l;
	return true;
}

/* How long ago the lease was written, by the file system's own clock. */
static int64_t age_sec(int folder, int fd)
{
	struct stat now, then;
	CLEANUP(closep)
	int probe = openat(folder, CLOCK_NAME,
			   O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = probe >= 0 && write(probe, "\n", 1) == 1 &&
		  !fstat(probe, &now) && !fstat(fd, &then);

	if (probe >= 0)
		unlinkat(folder, CLOCK_NAME, 0);
	if (!ok)
		return 0;
	return now.st_mtim.tv_sec - then.st_mtim.tv_sec;
}

static bool is_fresh(int folder, int fd)
{
	int64_t age = age_sec(folder, fd);

	return age < STORE_LEASE_SEC && age > -STORE_LEASE_SEC;
}

/* Has its process ended for certain? */
static bool is_dead(const struct lease *theirs, const struct lease *ours)
{
	if (*ours->boot && !strcmp(theirs->boot, ours->boot))
		return *ours->pids && !strcmp(theirs->pids, ours->pids) &&
		       theirs->holder.pid > 0 &&
		       kill((pid_t)theirs->holder.pid, 0) < 0 && errno == ESRCH;
	/* The same machine, which was started anew. */
	return *ours->machine && !strcmp(theirs->machine, ours->machine) &&
	       !strcmp(theirs->holder.host, ours->holder.host);
}

/* ---- the lock ---- */

static bool has_no_locks(int code)
{
	return code == ENOLCK || code == ENOTSUP || code == EOPNOTSUPP ||
	       code == ENOSYS || code == EINVAL;
}

static int open_lock(int folder, int flags)
{
	return openat(folder, LOCK_NAME,
		      flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
}

static int refuse(const char *path, const struct lease *l, bool by_lease,
		  struct error *err)
{
	if (by_lease)
		return error_set(err, -EBUSY, 0,
				 "store: %s: is in use by process %" PRId64
				 " on %s; a lease that is not renewed ends "
				 "after %d s",
				 path, l->holder.pid, l->holder.host,
				 STORE_LEASE_SEC);
	return error_set(err, -EBUSY, 0,
			 "store: %s: is in use by process %" PRId64 " on %s: "
			 "one server, or platter index restore or rebuild, at "
			 "a time",
			 path, l->holder.pid, l->holder.host);
}

/* Takes the kernel's lock, where there is one. */
static int lock_file(struct store_lock *l, struct error *err)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	struct lease theirs = { .holder = { .host = "?" } };

	if (fcntl(l->fd, F_OFD_SETLK, &whole) == 0) {
		l->locked = true;
		return 0;
	}
	if (errno == EAGAIN || errno == EACCES) {
		read_lease(l->fd, &theirs);
		return refuse(l->path, &theirs, false, err);
	}
	return has_no_locks(errno) ? 0
				   : error_set(err, -errno, 0,
					       "store: %s/" LOCK_NAME ": %s",
					       l->path, errno_text(errno));
}

/* The lease that is there: does it keep us out? */
static int check_lease(struct store_lock *l, struct error *err)
{
	struct lease theirs;

	if (!read_lease(l->fd, &theirs) || is_dead(&theirs, &l->lease) ||
	    !is_fresh(l->folder, l->fd))
		return 0;
	/* One kernel: its lock says all. */
	if (l->locked && *l->lease.boot && !strcmp(theirs.boot, l->lease.boot))
		return 0;
	return refuse(l->path, &theirs, true, err);
}

static int sign(struct store_lock *l, struct error *err)
{
	struct lease seen;

	if (write_lease(l->fd, &l->lease) < 0 || fdatasync(l->fd) < 0)
		return error_set(err, -EIO, 0,
				 "store: %s/" LOCK_NAME
				 ": the lease cannot be written",
				 l->path);
	if (l->locked)
		return 0;
	usleep(SETTLE_USEC);
	if (read_lease(l->fd, &seen) && strcmp(seen.nonce, l->lease.nonce) != 0)
		return refuse(l->path, &seen, true, err);
	return 0;
}

/* Does the file's name still lead to it? Somebody may have removed it. */
static bool is_named(const struct store_lock *l)
{
	struct stat named, held;

	return fstatat(l->folder, LOCK_NAME, &named, AT_SYMLINK_NOFOLLOW) ==
		       0 &&
	       fstat(l->fd, &held) == 0 && named.st_dev == held.st_dev &&
	       named.st_ino == held.st_ino;
}

/* What the superuser makes is the store's owner's to use. */
static int give_to_owner(int folder, int fd)
{
	struct stat of, st;

	if (geteuid() != 0 || fstat(folder, &of) < 0 || fstat(fd, &st) < 0 ||
	    st.st_uid == of.st_uid)
		return 0;
	return fchown(fd, of.st_uid, of.st_gid);
}

static int take(struct store_lock *l, struct error *err)
{
	struct stat st;
	int r;

	l->fd = open_lock(l->folder, O_RDWR | O_CREAT);
	if (l->fd < 0 || fstat(l->fd, &st) < 0)
		return error_set(err, -errno, 0, "store: %s/" LOCK_NAME ": %s",
				 l->path, errno_text(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, 0,
				 "store: %s/" LOCK_NAME
				 ": is not a regular file",
				 l->path);
	make_lease(&l->lease);
	r = lock_file(l, err);
	if (r >= 0)
		r = check_lease(l, err);
	if (r >= 0 && (!is_named(l) || give_to_owner(l->folder, l->fd) < 0))
		r = error_set(err, -EBUSY, 0,
			      "store: %s/" LOCK_NAME ": was just replaced",
			      l->path);
	return r < 0 ? r : sign(l, err);
}

int store_lock_take(int folder, const char *path, struct store_lock **ret,
		    struct error *err)
{
	struct store_lock *l = calloc(1, sizeof(*l));
	pthread_condattr_t attr;
	int r;

	if (!l)
		return error_set(err, -ENOMEM, 0, "out of memory");
	l->fd = -1;
	l->folder = folder;
	l->taker = getpid();
	pthread_mutex_init(&l->guard, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &attr);
	pthread_condattr_destroy(&attr);
	l->path = strdup(path);
	r = l->path ? take(l, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
	if (r < 0) {
		closep(&l->fd);
		l->fd = -1;
		store_lock_drop(l);
		return r;
	}
	*ret = l;
	return 0;
}

/* ---- keeping it ---- */

static bool is_ours(const struct store_lock *l)
{
	struct lease seen;

	return !read_lease(l->fd, &seen) || !strcmp(seen.nonce, l->lease.nonce);
}

static void *beat(void *opaque)
{
	struct store_lock *l = opaque;
	struct timespec until;

	pthread_mutex_lock(&l->guard);
	while (!l->ending) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += STORE_LEASE_BEAT_SEC;
		pthread_cond_timedwait(&l->wake, &l->guard, &until);
		if (l->ending || atomic_load(&l->lost))
			continue;
		if (is_ours(l) && is_named(l)) {
			write_lease(l->fd, &l->lease);
			continue;
		}
		log_line("store: %s: " LOCK_NAME " is another's, or "
			 "gone: nothing is written any more",
			 l->path);
		atomic_store(&l->lost, true);
	}
	pthread_mutex_unlock(&l->guard);
	return NULL;
}

/* Of a descriptor that nobody else has: not who forked us. */
static int take_again(struct store_lock *l, struct error *err)
{
	struct flock none = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (l->locked)
		fcntl(l->fd, F_OFD_SETLK, &none);
	close(TAKE_FD(l->fd));
	l->locked = false;
	l->fd = open_lock(l->folder, O_RDWR);
	if (l->fd < 0)
		return error_set(err, -errno, 0, "store: %s/" LOCK_NAME ": %s",
				 l->path, errno_text(errno));
	l->taker = getpid();
	l->lease.holder.pid = l->taker;
	if (lock_file(l, err) < 0)
		return err->code;
	if (!is_ours(l))
		return refuse(l->path, &l->lease, true, err);
	make_nonce(&l->lease);
	return sign(l, err);
}

int store_lock_keep(struct store_lock *l, struct error *err)
{
	int r = l->taker == getpid() ? 0 : take_again(l, err);

	if (r < 0)
		return r;
	r = pthread_create(&l->thread, NULL, beat, l);
	if (r)
		return error_set(err, -r, 0, "store: %s: %s", l->path,
				 errno_text(r));
	l->beating = true;
	return 0;
}

bool store_lock_lost(const struct store_lock *l)
{
	return atomic_load(&l->lost);
}

void store_lock_drop(struct store_lock *l)
{
	if (!l)
		return;
	if (l->beating) {
		pthread_mutex_lock(&l->guard);
		l->ending = true;
		pthread_cond_signal(&l->wake);
		pthread_mutex_unlock(&l->guard);
		pthread_join(l->thread, NULL);
	}
	/* A process that was forked from the taker has nothing to give back. */
	if (l->fd >= 0 && l->taker == getpid() && is_ours(l) &&
	    ftruncate(l->fd, 0) < 0)
		log_line("store: %s/" LOCK_NAME ": %s", l->path,
			 errno_text(errno));
	closep(&l->fd);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->guard);
	free(l->path);
	free(l);
}

int store_lock_holder(int folder, struct store_holder *ret, struct error *err)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	CLEANUP(closep) int fd = open_lock(folder, O_RDONLY);
	struct lease ours, theirs;

	if (fd < 0)
		return errno == ENOENT
			       ? 0
			       : error_set(err, -errno, 0, LOCK_NAME ": %s",
					   errno_text(errno));
	make_lease(&ours);
	if (!read_lease(fd, &theirs))
		return 0;
	*ret = theirs.holder;
	if (fcntl(fd, F_OFD_GETLK, &whole) == 0) {
		if (whole.l_type != F_UNLCK)
			return 1;
		if (!strcmp(theirs.boot, ours.boot))
			return 0;
	}
	return !is_dead(&theirs, &ours) && is_fresh(folder, fd);
}
