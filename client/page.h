/* Lines of text on their way to a terminal or a pipe: cut to its width and height, where it has any. A value to
 * embed; what is written meanwhile is held in memory, so that it comes out at once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct sk_page {
	unsigned width, height; /* 0: no bound */
	unsigned n_lines;       /* so far */
	bool redraws; /* over what a terminal shows: every line is cleared behind its end */
	FILE *file;
	char *text; /* once it is ended */
	size_t n_bytes;
};

int sk_page_init(struct sk_page *page); /* bounds are set by the caller. 0 or -errno */
/* A line; past the height nothing is added. Control characters are shown as '?'. */
void sk_page_line(struct sk_page *page, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Lines that are left; a large number where there is no bound. */
unsigned sk_page_left(const struct sk_page *page);
/* Ends the page: its text, which it keeps; NULL without memory. */
const char *sk_page_text(struct sk_page *page);
/* Ends it, to standard output: 0, or the exit code of what has been said. */
int sk_page_write(struct sk_page *page);
void sk_page_finish(struct sk_page *page);

/* Characters of UTF-8: places on a terminal, as far as names of people and models go. */
size_t sk_text_width(const char *text);
