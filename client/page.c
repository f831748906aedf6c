#include "client/page.h"

#include "client/command.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>

static bool begins_character(char c)
{
	return ((unsigned char)c & 0xc0) != 0x80;
}

size_t sk_text_width(const char *text)
{
	size_t n = 0;
	for (; *text; text++)
		n += begins_character(*text);
	return n;
}

int sk_page_init(struct sk_page *page)
{
	page->n_lines = 0;
	page->text = NULL;
	page->n_bytes = 0;
	page->file = open_memstream(&page->text, &page->n_bytes);
	return page->file ? 0 : -errno;
}

unsigned sk_page_left(const struct sk_page *page)
{
	if (!page->height)
		return UINT_MAX;
	return page->n_lines < page->height ? page->height - page->n_lines : 0;
}

static void put_line(struct sk_page *page, const char *text)
{
	unsigned width = 0;

	if (!sk_page_left(page))
		return;
	/* Behind the last line of a full terminal a newline would scroll. */
	if (page->n_lines++)
		fputs(page->redraws ? "\r\n" : "\n", page->file);
	for (; *text; text++) {
		width += begins_character(*text);
		if (page->width && width > page->width)
			break;
		bool is_control = (unsigned char)*text < 0x20 || *text == 0x7f;
		fputc(is_control ? '?' : *text, page->file);
	}
	if (page->redraws)
		fputs("\033[K", page->file);
}

void sk_page_line(struct sk_page *page, const char *format, ...)
{
	char text[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	put_line(page, text);
}

const char *sk_page_text(struct sk_page *page)
{
	if (!page->redraws && page->n_lines)
		fputc('\n', page->file);
	bool failed = ferror(page->file);
	failed |= fclose(page->file) != 0;
	page->file = NULL;
	return failed ? NULL : page->text;
}

int sk_page_write(struct sk_page *page)
{
	const char *text = sk_page_text(page);
	return text ? sk_write_out(text, page->n_bytes) : sk_said(EX_OSERR, "not enough memory");
}

void sk_page_finish(struct sk_page *page)
{
	if (page->file)
		fclose(page->file);
	free(page->text);
}
