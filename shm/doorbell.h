/* A doorbell: wakes the other process from poll. Private to shm/.
 *
 * A pipe and not an eventfd, because of what the peer can do to it. Both ends of an eventfd are one
 * open file, so a hostile peer could clear its O_NONBLOCK, fill the counter, and leave us blocked
 * for ever in write. A pipe's ends are two open files: the one we use is ours alone, and its flags
 * with it. The process that made the pipe keeps both ends, so that a peer's closing is neither
 * SIGPIPE nor a POLLHUP that never ends.
 */
#pragma once

/* Both ends, non-blocking and close-on-exec; the pipe holds a page at most. */
int sk_doorbell_open(int *ret_read_fd, int *ret_write_fd);
/* Checks that a peer's descriptor is a pipe's end of the wanted direction: -EBADMSG. */
int sk_doorbell_check(int fd, int for_writing);
/* Never blocks. A pipe that is full has been rung often enough. For who made the pipe: */
void sk_doorbell_ring(int write_fd);
/* For the peer, whom nobody may hear any more: without SIGPIPE, whatever the program does about that. */
void sk_doorbell_ring_peer(int write_fd);
/* Silences it. Rings that come meanwhile may be silenced or not. */
void sk_doorbell_drain(int read_fd);
