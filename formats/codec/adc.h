/* SPDX-License-Identifier: BSD-3-Clause */
/* ADC, the LZ77 of Apple's first compressed disk images. */
#ifndef FORMATS_CODEC_ADC_H
#define FORMATS_CODEC_ADC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Decodes @in until @out is full, never beyond. false: the stream ends before
 * that, or copies from before the beginning of @out.
 */
bool adc_decode(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len);

#endif
