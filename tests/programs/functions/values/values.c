/* Says what its functions are given and give back, in the words in which remora is to say it. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __clang__
#define KEEP __attribute__((noinline))
#else
#define KEEP __attribute__((noinline, noclone))
#endif
#define ARG(function, name, format, ...) printf(#function "|remora.arg." #name "|" format "\n", __VA_ARGS__)
#define RETURNS(function, format, ...) printf(#function "|remora.return|" format "\n", __VA_ARGS__)

enum colour { RED, GREEN = 7, BLUE = -2 };
struct point { int x; int y; };
struct wide { long a; unsigned char b; short c; };
struct node { int id; const char *name; struct node *next; };
struct large { long part[4]; int last; };
struct flags { unsigned low : 3; int high : 5; unsigned rest : 20; };

KEEP int integers(signed char a, unsigned char b, short c, unsigned short d, int e, unsigned f, long g, unsigned long h, bool i)
{
	ARG(integers, a, "%d", a);
	ARG(integers, b, "%u", b);
	ARG(integers, c, "%d", c);
	ARG(integers, d, "%u", d);
	ARG(integers, e, "%d", e);
	ARG(integers, f, "%u", f);
	ARG(integers, g, "%ld", g);
	ARG(integers, h, "%lu", h);
	ARG(integers, i, "%s", i ? "true" : "false");
	return e - 1000;
}

KEEP const char *texts(const char *text, const char *none, const unsigned char *bytes, char letter, enum colour colour)
{
	ARG(texts, text, "%s", text);
	ARG(texts, none, "%s", none ? none : "null");
	ARG(texts, bytes, "%p", (const void *)bytes);
	ARG(texts, letter, "'%c'", letter);
	ARG(texts, colour, "%s", colour == RED ? "RED" : colour == GREEN ? "GREEN" : "BLUE");
	return text + 1;
}

KEEP struct point points(struct point p, struct point *q, struct wide w)
{
	ARG(points, p, "{x: %d, y: %d}", p.x, p.y);
	ARG(points, q, "&{x: %d, y: %d}", q->x, q->y);
	ARG(points, w, "{a: %ld, b: %u, c: %d}", w.a, w.b, w.c);
	return (struct point){ p.x + q->x, p.y + q->y };
}

KEEP struct wide lists(struct node *list, struct large big, struct flags flags)
{
	ARG(lists, list, "&{id: %d, name: \"%s\", next: &{id: %d, name: \"%s\", next: null}}", list->id, list->name, list->next->id, list->next->name);
	ARG(lists, big, "{part: [%ld, %ld, %ld, %ld], last: %d}", big.part[0], big.part[1], big.part[2], big.part[3], big.last);
	ARG(lists, flags, "{low: %u, high: %d, rest: %u}", flags.low, flags.high, flags.rest);
	return (struct wide){ big.part[1], flags.low, -5 };
}

KEEP struct large larges(int count, double ratio)
{
	ARG(larges, count, "%d", count);
	ARG(larges, ratio, "%s", "<floats are not readable>");
	struct large all = { { count, count + 1, count + 2, count + 3 }, (int)ratio };
	return all;
}

/* Its parameter is written first and its address escapes. */
KEEP long overwritten(long first, long second)
{
	ARG(overwritten, first, "%ld", first);
	ARG(overwritten, second, "%ld", second);
	first = second;
	__asm__ volatile("" : : "r"(&first) : "memory");
	return first;
}

static KEEP unsigned long inner(unsigned long value, int times)
{
	ARG(inner, value, "%lu", value);
	ARG(inner, times, "%d", times);
	return value * (unsigned long)times;
}

KEEP enum colour colours(int n)
{
	ARG(colours, n, "%d", n);
	return n > 3 ? GREEN : BLUE;
}

KEEP bool truths(int n)
{
	ARG(truths, n, "%d", n);
	return n > 3;
}

int main(int argc, char **argv)
{
	(void)argv;
	for (int n = argc; n < argc + 6; n += 3) {
		RETURNS(integers, "%d", integers(-n, 200 + n, -30000 - n, 60000 + n, -2000000000 - n, 4000000000u + n, -9000000000000000000L - n, 18000000000000000000UL + n, n & 1));
		char word[300];
		memset(word, 0, sizeof word);
		snprintf(word, sizeof word, "word %d \xc3\xa4", n);
		RETURNS(texts, "%s", texts(word, NULL, (unsigned char *)word, 'a' + n, n == 1 ? GREEN : BLUE));
		struct point q = { n * 3, -n };
		struct point r = points((struct point){ n, n + 1 }, &q, (struct wide){ n * 1000000007L, 3, -4 });
		RETURNS(points, "{x: %d, y: %d}", r.x, r.y);
		struct node second = { n + 1, "second", NULL };
		struct node first = { n, word, &second };
		struct large big = { { n, n * 2, n * 3, n * 4 }, -n };
		struct wide w = lists(&first, big, (struct flags){ 5, -n, 100000 + n });
		RETURNS(lists, "{a: %ld, b: %u, c: %d}", w.a, w.b, w.c);
		struct large all = larges(n, 2.5 * n);
		RETURNS(larges, "{part: [%ld, %ld, %ld, %ld], last: %d}", all.part[0], all.part[1], all.part[2], all.part[3], all.last);
		RETURNS(overwritten, "%ld", overwritten(n, n + 77));
		RETURNS(inner, "%lu", inner(n, 3));
		RETURNS(colours, "%s", colours(n) == GREEN ? "GREEN" : "BLUE");
		RETURNS(truths, "%s", truths(n) ? "true" : "false");
	}
	return 0;
}
