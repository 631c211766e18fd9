/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "iouring/util.h"
#include "nbd/peers.h"

/*
 * The file: slots of this size, with an identity or empty. Nothing is synced:
 * it is for the next process. One slot is one write.
 */
#define SLOT_BYTES 128U

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int file = -1;
static char (*lost)[SLOT_BYTES]; /* slots of servers that died */
static size_t n_lost;
static bool used[PEERS_MAX];

int peers_use(int fd, struct error *err)
{
	char slot[SLOT_BYTES], (*grown)[SLOT_BYTES];
	size_t i;

	file = fd;
	for (i = 0; fd >= 0 && i < PEERS_MAX; i++) {
		ssize_t n = pread(fd, slot, sizeof(slot),
				  (off_t)(i * sizeof(slot)));

		if (n < 0)
			return error_set(err, -errno, 0,
					 "what an earlier server left cannot "
					 "be read: %s",
					 errno_text(errno));
		if (n < (ssize_t)sizeof(slot))
			break;
		if (!*slot)
			continue;
		slot[sizeof(slot) - 1] = '\0';
		grown = realloc(lost, (n_lost + 1) * sizeof(*lost));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		lost = grown;
		memcpy(lost[n_lost++], slot, sizeof(slot));
		used[i] = true;
	}
	return 0;
}

static int write_slot(size_t i, const char *peer)
{
	char slot[SLOT_BYTES] = "";
	ssize_t n;

	strncpy(slot, peer, PEER_BYTES_MAX - 1);
	n = pwrite(file, slot, sizeof(slot), (off_t)(i * sizeof(slot)));
	if (n == (ssize_t)sizeof(slot))
		return 0;
	return n < 0 ? -errno : -EIO;
}

int peers_add(const char *peer, int *ret, struct error *err)
{
	size_t i = 0;
	int r = 0;

	*ret = -1;
	if (file < 0)
		return 0;
	pthread_mutex_lock(&lock);
	while (i < PEERS_MAX && used[i])
		i++;
	r = i < PEERS_MAX ? write_slot(i, peer) : -ENOSPC;
	if (r >= 0) {
		used[i] = true;
		*ret = (int)i;
	}
	pthread_mutex_unlock(&lock);
	if (r < 0)
		error_set(err, r, 0,
			  "who writes cannot be noted, of %u at most: %s",
			  PEERS_MAX, errno_text(-r));
	return r;
}

void peers_drop(int slot)
{
	if (slot < 0)
		return;
	pthread_mutex_lock(&lock);
	if (write_slot((size_t)slot, "") >= 0)
		used[slot] = false;
	pthread_mutex_unlock(&lock);
}

bool peers_has_lost(const char *peer)
{
	size_t i;

	for (i = 0; i < n_lost; i++)
		if (!strncmp(lost[i], peer, PEER_BYTES_MAX - 1))
			return true;
	return false;
}
