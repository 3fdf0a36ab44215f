/* Results and arguments for which calling conventions have rules of their own. */
#include <stdio.h>

#ifdef __clang__
#define KEEP __attribute__((noinline))
#else
#define KEEP __attribute__((noinline, noclone))
#endif
#define ARG(function, name, format, ...) printf(#function "|remora.arg." #name "|" format "\n", __VA_ARGS__)
#define RETURNS(function, format, ...) printf(#function "|remora.return|" format "\n", __VA_ARGS__)

/* A member that is not aligned: in memory, however small. */
struct __attribute__((packed)) packed { char tag; long number; };
struct __attribute__((packed)) aligned { long number; char tag; };
/* A bit field is where its bits are. */
struct field { long number; int low : 3; int high : 20; };
struct mixed { double ratio; int low : 3; int high : 20; };
/* In vector registers. */
typedef long four __attribute__((vector_size(32)));
typedef long two __attribute__((vector_size(16)));
struct wrapped { two pair; };

KEEP struct packed packs(int n)
{
	ARG(packs, n, "%d", n);
	return (struct packed){ (char)('a' + n), n * 1000000007L };
}

KEEP struct aligned aligns(struct packed p, int n)
{
	ARG(aligns, p, "{tag: '%c', number: %ld}", p.tag, p.number);
	ARG(aligns, n, "%d", n);
	return (struct aligned){ n * 1000000007L, (char)('b' + n) };
}

KEEP struct field fields(struct field f, int n)
{
	ARG(fields, f, "{number: %ld, low: %d, high: %d}", f.number, f.low, f.high);
	ARG(fields, n, "%d", n);
	return (struct field){ n * 7L, n & 3, -n * 1000 };
}

KEEP struct mixed mixes(struct mixed m, int n)
{
	ARG(mixes, n, "%d", n);
	return (struct mixed){ m.ratio * n, n & 3, -n * 1000 };
}

KEEP two pairs(two first, int n)
{
	ARG(pairs, first, "[%ld, %ld]", first[0], first[1]);
	ARG(pairs, n, "%d", n);
	return (two){ n, first[1] };
}

KEEP struct wrapped wraps(struct wrapped w, int n)
{
	ARG(wraps, n, "%d", n);
	return (struct wrapped){ (two){ n, w.pair[1] } };
}

#ifdef __AVX__
KEEP four fours(int n)
{
	ARG(fours, n, "%d", n);
	return (four){ n, n + 1, n + 2, n + 3 };
}
#endif

int main(int argc, char **argv)
{
	(void)argv;
	for (int n = argc; n < argc + 6; n += 3) {
		struct packed p = packs(n);
		RETURNS(packs, "{tag: '%c', number: %ld}", p.tag, p.number);
		struct aligned a = aligns(p, n);
		RETURNS(aligns, "{number: %ld, tag: '%c'}", a.number, a.tag);
		struct field f = fields((struct field){ n, 1, n * 100 }, n);
		RETURNS(fields, "{number: %ld, low: %d, high: %d}", f.number, f.low, f.high);
		struct mixed m = mixes((struct mixed){ 1.5, 1, n * 100 }, n);
		RETURNS(mixes, "{ratio: <floats are not readable>, low: %d, high: %d}", m.low, m.high);
		two t = pairs((two){ n, n * 3L }, n);
		RETURNS(pairs, "[%ld, %ld]", t[0], t[1]);
		struct wrapped w = wraps((struct wrapped){ t }, n);
		RETURNS(wraps, "{pair: [%ld, %ld]}", w.pair[0], w.pair[1]);
#ifdef __AVX__
		four v = fours(n);
		RETURNS(fours, "[%ld, %ld, %ld, %ld]", v[0], v[1], v[2], v[3]);
#endif
	}
	return 0;
}
