// longjmp out of probed frames.
#include <setjmp.h>

#include "scene.h"

static jmp_buf back;
static long hops, leaps;

PROBED long leap(long n) {
    ++leaps;
    if (n % 2) longjmp(back, (int)n);
    return n;
}

PROBED long hop(long n) {
    ++hops;
    return leap(n) + 1;
}

int main(void) {
    ready();
    volatile long sum = 0;
    for (volatile long n = 0; n < 2000; ++n) {
        int from = setjmp(back);
        if (from) {
            sum += from;
            continue;
        }
        sum += hop(n);
    }
    printf("%ld\n", sum);
    calls("hop", hops);
    calls("leap", leaps);
}
