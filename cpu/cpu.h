/* The CPU as a backend: see backend/backend.h for what it does. This is all that others see of it. */
#pragma once

#include "backend/impl.h"

extern const struct sk_backend_kind sk_cpu_backend;
