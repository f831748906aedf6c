/* An intrusive doubly linked list: the node lives inside the thing that is listed, so adding and
 * removing allocate nothing and cannot fail. A list head is a node that is in no thing.
 * Not locked: one list belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct sk_list {
	struct sk_list *prev, *next;
};

#define SK_LIST_INIT(name)                                                                         \
	{                                                                                          \
		&(name), &(name)                                                                   \
	}

/* The thing of type `type` whose member `member` is `node`. */
#define sk_container_of(node, type, member) ((type *)((char *)(node)-offsetof(type, member)))

static inline void sk_list_init(struct sk_list *head)
{
	head->prev = head->next = head;
}

static inline bool sk_list_is_empty(const struct sk_list *head)
{
	return head->next == head;
}

static inline void sk_list_append(struct sk_list *head, struct sk_list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* Safe on a node that is already out: it is left as a list of itself. */
static inline void sk_list_remove(struct sk_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	node->prev = node->next = node;
}

static inline struct sk_list *sk_list_pop(struct sk_list *head)
{
	struct sk_list *node = head->next;
	if (node == head)
		return NULL;
	sk_list_remove(node);
	return node;
}

/* The body may remove `node`, and no other. */
#define sk_list_for_each(node, head)                                                               \
	for (struct sk_list *node = (head)->next, *node##_next = node->next; node != (head);       \
	     node = node##_next, node##_next = node->next)
