/* Values that made-up programs showed to be told wrongly. Functions say nothing themselves: a call would change
   what they are. */
#include <stdio.h>

#ifdef __clang__
#define KEEP __attribute__((noinline))
#else
#define KEEP __attribute__((noinline, noclone))
#endif
#define ARG(function, name, format, ...) printf(#function "|remora.arg." #name "|" format "\n", __VA_ARGS__)
#define RETURNS(function, format, ...) printf(#function "|remora.return|" format "\n", __VA_ARGS__)
#define READ(value) __asm__ volatile("testb $0, %0" : : "m"(value) : "cc")

/* Bit fields have the sign and the names of their types. */
enum level { low = -1, middle, high };
struct signs { signed char a : 3; char b : 4; enum level c : 3; _Bool d : 1; unsigned e : 3; };
/* One goes on behind its unit: DWARF 4 counts its place below zero. */
struct __attribute__((packed)) crossing { int number; char first : 5; signed char over : 7; unsigned short after; };
/* Clang does not say at which bit a full one begins. */
struct __attribute__((packed)) full { unsigned char first : 4; int second : 32; int third : 32; unsigned char last : 4; };
/* Arrays of arrays. */
typedef int row[2];
struct rows { row rows[2]; long grid[2][2]; };
struct pair { long first; int second; };
struct large { long numbers[4]; };

KEEP int signs(struct signs s, struct crossing c)
{
	READ(s);
	READ(c);
	return s.a;
}

KEEP int fulls(struct full f)
{
	READ(f);
	return f.last;
}

KEEP long grids(struct rows r)
{
	READ(r);
	return r.grid[1][1];
}

/* Without optimisation, too, these have registers that are filled by and by. */
KEEP long registers(register int a, register long b, int c, int d, int e, int f, register long g, register int h)
{
	register long sum = a * b + c + d + e + f;
	return sum + g * h;
}

/* No jump, no call: the stack pointer is taken back where nothing else has happened. */
KEEP long straight(struct large l, struct pair p, int n)
{
	READ(p);
	READ(l);
	return p.first + n;
}

/* The last four come in on the stack, and are loaded first. */
KEEP long loads(long a, long b, long c, long d, long e, long f, int g, _Bool h, short i, unsigned char j)
{
	long sum = a + b + c + d + e + f;
	for (int n = 0; n < 3; n++)
		__asm__ volatile("" : "+r"(sum) : "r"(g), "r"((int)h), "r"((int)i), "r"((int)j));
	return sum;
}

/* Nobody needs it: it may not be there. */
KEEP int ignores(struct large l, int n)
{
	(void)l;
	return n + 1;
}

/* What it is given is of no use to it. */
static KEEP int overwrites(int n)
{
	n = 0;
	READ(n);
	return n;
}

int main(int argc, char **argv)
{
	(void)argv;
	for (int n = argc; n < argc + 4; n += 3) {
		struct signs s = { -n % 4, -n, n > 2 ? low : high, n > 2, n };
		struct crossing c = { n * 1000, -n, -n * 9, n };
		ARG(signs, s, "{a: %d, b: %d, c: %s, d: %s, e: %u}", s.a, s.b, s.c == low ? "low" : "high", s.d ? "true" : "false", s.e);
		ARG(signs, c, "{number: %d, first: %d, over: %d, after: %u}", c.number, c.first, c.over, c.after);
		RETURNS(signs, "%d", signs(s, c));
		struct full f = { n, n * 1000, -n * 1000, n + 1 };
		ARG(fulls, f, "{first: %u, second: %d, third: %d, last: %u}", f.first, f.second, f.third, f.last);
		RETURNS(fulls, "%d", fulls(f));
		struct rows r = { { { n, 2 }, { 3, -n } }, { { n, 6 }, { 7, -n } } };
		ARG(grids, r, "{rows: [[%d, 2], [3, %d]], grid: [[%d, 6], [7, %d]]}", n, -n, n, -n);
		RETURNS(grids, "%ld", grids(r));
		ARG(registers, a, "%d", n);
		ARG(registers, b, "%d", n + 1);
		ARG(registers, g, "%d", n + 6);
		ARG(registers, h, "%d", n + 7);
		RETURNS(registers, "%ld", registers(n, n + 1, 3, 4, 5, 6, n + 6, n + 7));
		struct large l = { { n, 2, 3, -n } };
		struct pair p = { n * 10000000000L, -n };
		ARG(straight, l, "{numbers: [%d, 2, 3, %d]}", n, -n);
		ARG(straight, p, "{first: %ld, second: %d}", p.first, p.second);
		ARG(straight, n, "%d", n);
		RETURNS(straight, "%ld", straight(l, p, n));
		ARG(loads, a, "%d", n);
		ARG(loads, g, "%d", -n);
		ARG(loads, h, "%s", n > 2 ? "true" : "false");
		ARG(loads, i, "%d", n * 100);
		ARG(loads, j, "%d", n + 200);
		RETURNS(loads, "%ld", loads(n, 2, 3, 4, 5, 6, -n, n > 2, n * 100, n + 200));
		ARG(ignores, l, "{numbers: [%d, 2, 3, %d]}", n, -n);
		ARG(ignores, n, "%d", n);
		RETURNS(ignores, "%d", ignores(l, n));
		ARG(overwrites, n, "%d", 9);
		RETURNS(overwrites, "%d", overwrites(9));
	}
	return 0;
}
