/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * deny-uring ERRNO COMMAND [ARGS]: runs COMMAND under a seccomp filter that
 * answers io_uring's three system calls with ERRNO (EPERM or ENOSYS), as
 * containers do.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* If the call's number is @nr, go to the line that denies: @far lines on. */
#define DENY(nr, far) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), (far), 0)

static int filter_install(unsigned int code)
{
	struct sock_filter lines[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		DENY(SYS_io_uring_setup, 3),
		DENY(SYS_io_uring_enter, 2),
		DENY(SYS_io_uring_register, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K,
			 SECCOMP_RET_ERRNO | (code & SECCOMP_RET_DATA)),
	};
	struct sock_fprog program = {
		.len = sizeof(lines) / sizeof(lines[0]),
		.filter = lines,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return -errno;
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int code;
	long r;

	if (argc >= 3 && !strcmp(argv[1], "EPERM")) {
		code = EPERM;
	} else if (argc >= 3 && !strcmp(argv[1], "ENOSYS")) {
		code = ENOSYS;
	} else {
		fputs("usage: deny-uring EPERM|ENOSYS COMMAND [ARGS]\n",
		      stderr);
		return 2;
	}
	r = filter_install(code);
	if (r < 0) {
		fprintf(stderr, "deny-uring: no seccomp here: %s\n",
			strerror((int)-r));
		return 77;
	}
	/* The filter must bite, or what is tested is something else. */
	r = syscall(SYS_io_uring_setup, 1, NULL);
	if (r != -1 || errno != (int)code) {
		fputs("deny-uring: the filter does not work\n", stderr);
		return 2;
	}
	execvp(argv[2], argv + 2);
	fprintf(stderr, "deny-uring: %s: %s\n", argv[2], strerror(errno));
	return 127;
}
