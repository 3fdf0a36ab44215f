// Functions that return and jump through thunks, as compilers make them against speculation.
#include "scene.h"

#ifdef EXTERN
// What `-mfunction-return=thunk-extern` leaves to the program.
__asm__(".text\n.globl __x86_return_thunk\n.type __x86_return_thunk, @function\n"
        "__x86_return_thunk:\n  ret\n.size __x86_return_thunk, .-__x86_return_thunk\n");
#endif

static long works, chooses;

PROBED long work(long n) {
    ++works;
    return n % 3 ? n * 2 : n + 1;
}

static long one(long n) { return work(n) + 1; }
static long two(long n) { return work(n + 1) + 2; }

PROBED long choose(long (*which)(long), long n) {
    ++chooses;
    // A tail call through a pointer.
    return which(n);
}

int main(void) {
    ready();
    long sum = 0;
    for (long n = 0; n < 2000; ++n) sum += choose(n % 2 ? one : two, n);
    printf("%ld\n", sum);
    calls("work", works);
    calls("choose", chooses);
}
