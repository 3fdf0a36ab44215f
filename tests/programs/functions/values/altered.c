/* Functions that optimisers give other signatures: what they are given is not where it seems to be. */
#include <stdio.h>

#define KEEP static __attribute__((noinline))
#define ARG(function, name, format, ...) printf(#function "|remora.arg." #name "|" format "\n", __VA_ARGS__)
#define RETURNS(function, format, ...) printf(#function "|remora.return|" format "\n", __VA_ARGS__)

struct point { int x, y; };
static volatile int sink;

/* One argument is the same in every call, one is used by no code, the result by no caller. */
KEEP int scaled(long unused, int factor, int value, const char *name)
{
	(void)unused;
	ARG(scaled, factor, "%d", factor);
	ARG(scaled, value, "%d", value);
	ARG(scaled, name, "%s", name);
	sink = value * factor;
	return sink + 1;
}

/* Only one member is used. */
KEEP int across(const struct point *p, const struct point *q)
{
	int sum = p->x + q->y;
	printf("across|sum|%d\n", sum);
	return sum;
}

/* The first argument is the second from the beginning on. */
KEEP long replaced(long first, long second, long third)
{
	first = second;
	__asm__ volatile("" : : "r"(&first) : "memory");
	ARG(replaced, second, "%ld", second);
	ARG(replaced, third, "%ld", third);
	return first + third;
}

/* A structure whose parts are taken separately. */
KEEP int parts(struct point p, int n)
{
	ARG(parts, n, "%d", n);
	printf("parts|y|%d\n", p.y);
	return n - p.y;
}

int main(int argc, char **argv)
{
	for (int n = argc; n < argc + 3; n++) {
		scaled(n, 3, n * 7, argv[0]);
		scaled(n + 1, 3, n * 8, "name");
		struct point p = { n, n + 1 }, q = { n + 2, n + 3 };
		RETURNS(across, "%d", across(&p, &q));
		RETURNS(replaced, "%ld", replaced(n, n + 50, n + 100));
		RETURNS(parts, "%d", parts(p, n));
	}
	return 0;
}
