/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef FORMATS_GPT_H
#define FORMATS_GPT_H

#include <stddef.h>
#include <stdint.h>

/*
 * What a GUID partition table at the beginning tells of the disk's size: where its
 * other copy ends. 0: there is none, or not one that is sound.
 */
uint64_t gpt_disk_bytes(const uint8_t *head, size_t head_bytes);

#endif
