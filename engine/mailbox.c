#include "engine/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int sk_mailbox_init(struct sk_mailbox *mailbox)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	int err = pthread_mutex_init(&mailbox->lock, NULL);
	if (err) {
		close(fd);
		return -err;
	}
	sk_list_init(&mailbox->letters);
	mailbox->wake_fd = fd;
	return 0;
}

void sk_mailbox_finish(struct sk_mailbox *mailbox)
{
	if (!mailbox->letters.next)
		return;
	close(mailbox->wake_fd);
	pthread_mutex_destroy(&mailbox->lock);
	*mailbox = (struct sk_mailbox){0};
}

void sk_mailbox_wake(struct sk_mailbox *mailbox)
{
	uint64_t one = 1;
	if (write(mailbox->wake_fd, &one, sizeof one) < 0) {
		/* Full: the owner is as awake as it can be. */
	}
}

void sk_mailbox_post(struct sk_mailbox *mailbox, struct sk_list *node)
{
	pthread_mutex_lock(&mailbox->lock);
	sk_list_append(&mailbox->letters, node);
	sk_mailbox_wake(mailbox);
	pthread_mutex_unlock(&mailbox->lock);
}

void sk_mailbox_take(struct sk_mailbox *mailbox, struct sk_list *ret_letters)
{
	uint64_t n;
	if (read(mailbox->wake_fd, &n, sizeof n) < 0) {
		/* Nobody has woken us; look all the same. */
	}
	sk_list_init(ret_letters);
	pthread_mutex_lock(&mailbox->lock);
	for (struct sk_list *node; (node = sk_list_pop(&mailbox->letters));)
		sk_list_append(ret_letters, node);
	pthread_mutex_unlock(&mailbox->lock);
}

struct sk_list *sk_mailbox_take_one(struct sk_mailbox *mailbox)
{
	pthread_mutex_lock(&mailbox->lock);
	struct sk_list *node = sk_list_pop(&mailbox->letters);
	if (!node) {
		/* Under the lock, so that no letter's wake-up is cleared with it. */
		uint64_t n;
		if (read(mailbox->wake_fd, &n, sizeof n) < 0) {
			/* Not woken: as it should be. */
		}
	}
	pthread_mutex_unlock(&mailbox->lock);
	return node;
}

void sk_mailbox_wait(struct sk_mailbox *mailbox, int timeout_ms)
{
	struct pollfd fd = {.fd = mailbox->wake_fd, .events = POLLIN};
	(void)poll(&fd, 1, timeout_ms);
}
