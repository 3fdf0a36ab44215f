// Calls `shop::price` as often as a line says and answers with the CPU time, in nanoseconds.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <time.h>

enum class Currency { Euro, Dollar };

struct Quote {
    int cents;
    int pieces;
};

namespace shop {
// Neither inlined nor cloned nor seen through.
[[gnu::noipa]] int rate(Currency currency) { return currency == Currency::Dollar ? 3 : 2; }

[[gnu::noipa]] Quote price(const std::string &customer, int count, Currency currency) {
    int cents = rate(currency) * count;
    return {cents + static_cast<int>(customer.size()), count};
}
} // namespace shop

static long cpu_ns() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

int main() {
    const std::string customer = "Ada Lovelace";
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        const long count = atol(line), begun = cpu_ns();
        for (long n = 0; n < count; ++n) {
            const int pieces = static_cast<int>(n & 1023);
            const Quote quote = shop::price(customer, pieces, Currency::Dollar);
            if (quote.cents != pieces * 3 + 12 || quote.pieces != pieces) return 1;
        }
        printf("%ld\n", cpu_ns() - begun);
        fflush(stdout);
    }
}
