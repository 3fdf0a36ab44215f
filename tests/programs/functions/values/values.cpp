// Says what its functions are given and give back, in the words in which remora is to say it.
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#define KEEP __attribute__((noinline))
#define ARG(function, name, format, ...) std::printf(function "|remora.arg." #name "|" format "\n", __VA_ARGS__)
#define RETURNS(function, format, ...) std::printf(function "|remora.return|" format "\n", __VA_ARGS__)

enum class Level : unsigned char { low = 1, high = 200 };
struct Base { int base; };
struct Derived : Base { long own; };
struct Empty {};
struct Guard { int value; explicit Guard(int v) : value(v) {} ~Guard() { value = 0; } Guard(const Guard &other) : value(other.value) {} };

namespace shop {
struct Order {
	int id;
	std::string title;
	KEEP int total(int factor) const
	{
		ARG("_ZNK4shop5Order5totalEi", this, "&{id: %d, title: \"%s\"}", id, title.c_str());
		ARG("_ZNK4shop5Order5totalEi", factor, "%d", factor);
		return id * factor;
	}
};
extern "C" KEEP std::string title(const Order &order, std::string text, std::string_view view)
{
	ARG("title", order, "{id: %d, title: \"%s\"}", order.id, order.title.c_str());
	ARG("title", text, "%s", text.c_str());
	ARG("title", view, "%.*s", (int)view.size(), view.data());
	return order.title + text;
}
}

extern "C" KEEP Level levels(Level level, Derived derived, Derived &again, int &&moved, Empty)
{
	ARG("levels", level, "%s", level == Level::low ? "low" : "high");
	ARG("levels", derived, "{{base: %d}, own: %ld}", derived.base, derived.own);
	ARG("levels", again, "{{base: %d}, own: %ld}", again.base, again.own);
	ARG("levels", moved, "%d", moved);
	return level == Level::low ? Level::high : Level::low;
}

extern "C" KEEP Derived derive(int n)
{
	ARG("derive", n, "%d", n);
	Derived d;
	d.base = n;
	d.own = -n;
	return d;
}

extern "C" KEEP Guard guarded(int n, const std::vector<int> &all)
{
	ARG("guarded", n, "%d", n);
	ARG("guarded", all, "[%d, \xe2\x80\xa6 %zu elements]", all[0], all.size());
	return Guard(n * 2);
}

int main(int argc, char **)
{
	for (int n = argc; n < argc + 4; n += 3) {
		shop::Order order{ n, "order " + std::to_string(n) };
		RETURNS("_ZNK4shop5Order5totalEi", "%d", order.total(n + 4));
		std::string longer = "a text that is too long to be kept inside " + std::to_string(n);
		RETURNS("title", "%s", shop::title(order, longer, std::string_view(longer).substr(2, 4)).c_str());
		Derived d;
		d.base = n;
		d.own = n * 10000000000L;
		Derived e = d;
		RETURNS("levels", "%s", levels(n == 1 ? Level::low : Level::high, d, e, n + 5, Empty{}) == Level::low ? "low" : "high");
		Derived f = derive(n);
		RETURNS("derive", "{{base: %d}, own: %ld}", f.base, f.own);
		Guard g = guarded(n, { n, n + 1, n + 2 });
		RETURNS("guarded", "{value: %d}", g.value);
	}
}
