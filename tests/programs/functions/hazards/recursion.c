// Recursion ten thousand deep.
#include "scene.h"

static long entered;

PROBED long down(long n) {
    ++entered;
    if (n == 0) return 1;
    long below = down(n - 1);
    // Compilers make a loop of what they see through.
    __asm__ volatile("" : "+r"(below));
    return below + n % 7;
}

int main(void) {
    ready();
    printf("%ld\n", down(9999));
    for (int n = 0; n < 100; ++n) printf("%ld\n", down(n));
    calls("down", entered);
}
