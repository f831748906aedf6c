/* What a fuzz target defines. Also the names that libFuzzer looks for, so include nothing else. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Feeds one input; returns 0. Aborts where a promise is broken (not where the input is bad). */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

/* Optional: writes seed `index` (0, 1, ...) and returns its length, 0 past the last. `room` is 64
 * KB. */
size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room);
