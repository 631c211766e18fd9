/* SPDX-License-Identifier: BSD-3-Clause */
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/lib/ring-faults.h"

struct ring_faults ring_faults;

ssize_t pread64(int fd, void *buf, size_t len, off64_t off);
ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off);

/* Should this one go wrong? */
static bool strikes(void)
{
	unsigned int n = atomic_fetch_add(&ring_faults.ios, 1) + 1;

	if (!ring_faults.every || n % ring_faults.every)
		return false;
	atomic_fetch_add(&ring_faults.hits, 1);
	return true;
}

static void maybe_fail(struct io_uring_cqe *cqe)
{
	if (cqe->res > 1 && strikes())
		cqe->res = ring_faults.code ? ring_faults.code : cqe->res / 2;
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait_nr)
{
	int (*real)(struct io_uring *, unsigned int) =
		(int (*)(struct io_uring *, unsigned int))dlsym(
			RTLD_NEXT, "io_uring_submit_and_wait");
	unsigned int n = atomic_fetch_add(&ring_faults.submits, 1) + 1;
	struct io_uring_cqe *cqe;
	unsigned int head;
	int r;

	if (ring_faults.submit_code && n == ring_faults.submit_call) {
		atomic_fetch_add(&ring_faults.hits, 1);
		return ring_faults.submit_code;
	}
	r = real(ring, wait_nr);
	if (!ring_faults.every)
		return r;
	/* The reader takes all of these before it comes here again. */
	io_uring_for_each_cqe(ring, head, cqe) maybe_fail(cqe);
	return r;
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	bool strike = len > 1 && strikes();

	if (strike && ring_faults.code) {
		errno = -ring_faults.code;
		return -1;
	}
	return syscall(SYS_pread64, fd, buf, strike ? len / 2 : len, off);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	bool strike = len > 1 && strikes();

	if (strike && ring_faults.code) {
		errno = -ring_faults.code;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, buf, strike ? len / 2 : len, off);
}

void ring_deny(bool setup, int code)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 2,
			 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
			 setup ? SYS_io_uring_setup : UINT32_MAX, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K,
			 SECCOMP_RET_ERRNO | ((uint32_t)code & 0xffff)),
	};
	struct sock_fprog prog = {
		.len = sizeof(filter) / sizeof(filter[0]),
		.filter = filter,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		abort();
}
