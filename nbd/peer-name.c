/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/peer-name.h"

#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <linux/vm_sockets.h>

#include "formats/boot-id.h"

void peer_name(const struct sockaddr_storage *sa, socklen_t len, int64_t pid,
	       struct peer_names *ret)
{
	char host[INET6_ADDRSTRLEN + 16], port[8];

	snprintf(ret->text, sizeof(ret->text), "unknown");
	snprintf(ret->identity, sizeof(ret->identity), "unknown");
	if (sa->ss_family == AF_UNIX) {
		if (pid <= 0)
			return;
		snprintf(ret->text, sizeof(ret->text), "pid %" PRId64, pid);
		snprintf(ret->identity, sizeof(ret->identity),
			 "pid %" PRId64 " since %" PRIu64, pid,
			 process_started(pid));
		return;
	}
	if (sa->ss_family == AF_VSOCK) {
		const struct sockaddr_vm *vm = (const void *)sa;

		snprintf(ret->text, sizeof(ret->text), "vsock %u:%u",
			 vm->svm_cid, vm->svm_port);
		snprintf(ret->identity, sizeof(ret->identity),
			 "address vsock %u", vm->svm_cid);
		return;
	}
	if (getnameinfo((const struct sockaddr *)sa, len, host, sizeof(host),
			port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	snprintf(ret->text, sizeof(ret->text),
		 strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
	snprintf(ret->identity, sizeof(ret->identity), "address %s", host);
}
