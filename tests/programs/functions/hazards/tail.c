// Tail calls: chains of jumps, and two functions that jump into each other a thousand times.
#include "scene.h"

static long evens, odds, firsts, seconds, thirds;
int is_odd(unsigned n);

PROBED int is_even(unsigned n) {
    ++evens;
    if (n == 0) return 1;
    return is_odd(n - 1);
}

PROBED int is_odd(unsigned n) {
    ++odds;
    if (n == 0) return 0;
    return is_even(n - 1);
}

PROBED long third(long n) {
    ++thirds;
    return n * 3;
}

PROBED long second(long n) {
    ++seconds;
    return third(n + 1);
}

PROBED long first(long n) {
    ++firsts;
    if (n % 2) return second(n);
    return third(n);
}

int main(void) {
    ready();
    long sum = 0;
    for (int n = 0; n < 500; ++n) sum += first(n);
    printf("%ld %d %d\n", sum, is_even(1000), is_even(1001));
    calls("first", firsts);
    calls("second", seconds);
    calls("third", thirds);
    calls("is_even", evens);
    calls("is_odd", odds);
}
