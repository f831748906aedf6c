/* Saved sessions in files and pipes. Whatever fails has been said, and the exit code is returned; else 0. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Writes the n_bytes of a sealed memfd to the file `path`: into a temporary beside it, which takes its name when all is on
 * the disk, so that a file of that name is whole or as it was. It is the user's alone. Into what is no regular file
 * (a pipe, a device) it writes as it goes; "-" is standard output. A signal (sk_interrupt_catch()) leaves nothing
 * behind. */
int sk_saved_write(const char *path, int fd, uint64_t n_bytes);

/* Reads all of the file or pipe `path`, "-" for standard input, into a sealed memfd of the caller's. */
int sk_saved_read(const char *path, int *ret_fd, uint64_t *ret_n_bytes);
