/* The CUDA backend. Opening it fails with -ENODEV and a sentence where there is no device or no driver. */
#pragma once

#include "backend/backend.h"

extern const struct sk_backend_kind sk_gpu_backend;
