// Objects that are passed by their address, when that comes in on the stack, and when nobody looks at them.
#include <cstdio>
#include <string>
#include <vector>

#define KEEP __attribute__((noinline))
#define ARG(function, name, format, ...) std::printf(#function "|remora.arg." #name "|" format "\n", __VA_ARGS__)
#define RETURNS(function, format, ...) std::printf(#function "|remora.return|" format "\n", __VA_ARGS__)

struct Guard {
	int value;
	~Guard() { value = 0; }
};

extern "C" KEEP long behind(long a, long b, long c, long d, long e, long f, std::string text, Guard guard)
{
	return a + b + c + d + e + f + (long)text.size() + guard.value;
}

extern "C" KEEP int ignores(std::vector<int> list, int n)
{
	return n + 1;
}

extern "C" KEEP int guards(Guard guard, int n)
{
	return guard.value + n;
}

int main(int argc, char **)
{
	for (int n = argc; n < argc + 4; n += 3) {
		std::string text = "text " + std::to_string(n);
		ARG(behind, a, "%d", n);
		ARG(behind, text, "%s", text.c_str());
		ARG(behind, guard, "{value: %d}", n + 5);
		RETURNS(behind, "%ld", behind(n, 2, 3, 4, 5, 6, text, Guard{ n + 5 }));
		ARG(ignores, list, "[%d, \xe2\x80\xa6 2 elements]", n);
		ARG(ignores, n, "%d", n);
		RETURNS(ignores, "%d", ignores({ n, 2 }, n));
		ARG(guards, guard, "{value: %d}", n + 7);
		RETURNS(guards, "%d", guards(Guard{ n + 7 }, n));
	}
}
