/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which run of the kernel this is: what lies in its page cache, and nowhere
 * else yet, outlives a process and not a boot.
 */
#ifndef FORMATS_BOOT_ID_H
#define FORMATS_BOOT_ID_H

#include <stdbool.h>
#include <stdint.h>

#define BOOT_ID_BYTES 16U

/* The running kernel's (random(4), boot_id). False: it cannot be told. */
bool boot_id_get(uint8_t ret[BOOT_ID_BYTES]);

/*
 * When process @pid began, in ticks of this boot (proc(5), stat); 0: there is
 * none. With it, a process is told from an earlier one of the same number.
 */
uint64_t process_started(int64_t pid);

/* For tests: what it is from now on. NULL: the kernel's again. */
void boot_id_fake(const uint8_t *id);

#endif
