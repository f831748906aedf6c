/* Which model it is, in 16 bytes: what a saved session is checked against.
 *
 * A hash of the shapes, of every matrix' format, and of some rows of each: two models that differ in
 * training differ there, and a file of gigabytes need not be read. It says nothing about damage.
 */
#pragma once

#include "model/model.h"

#define SK_FINGERPRINT_BYTES 16

/* 0 or -ENOMEM. */
int sk_model_fingerprint(const struct sk_model *model, uint8_t ret[SK_FINGERPRINT_BYTES]);
