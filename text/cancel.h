/* What ends long work on text: a flag that any thread sets, and that the thread at work looks at for every few bytes,
 * so that it ends within tens of milliseconds whatever the text. The setter sees to it that the flag is still there.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

/* NULL: never. Relaxed: nothing else is read by the light of the flag. */
static inline bool sk_is_cancelled(const atomic_bool *is_cancelled)
{
	return is_cancelled && atomic_load_explicit(is_cancelled, memory_order_relaxed);
}
