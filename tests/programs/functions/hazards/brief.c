// Calls a function and one of the C library's a few times and is over.
#include "scene.h"

PROBED long work(long n) { return n * 2 + atoi("1"); }

int main(void) {
    ready();
    long sum = 0;
    for (long n = 0; n < 3; ++n) sum += work(n);
    printf("%ld\n", sum);
    calls("work", 3);
}
