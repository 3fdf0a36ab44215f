// Programs that look at their own stack: backtrace(), return addresses, the unwinder.
#include <execinfo.h>
#include <stdint.h>
#include <unwind.h>

#include "scene.h"

int main(void);
static long looks, nests;
static uintptr_t digest;
static int most;

static _Unwind_Reason_Code one(struct _Unwind_Context *context, void *count) {
    (void)context;
    ++*(int *)count;
    return _URC_NO_REASON;
}

PROBED int look(void) {
    ++looks;
    void *frames[64];
    int count = backtrace(frames, 64);
    int unwound = 0;
    _Unwind_Backtrace(one, &unwound);
    // Those in this program, as distances, which are the same wherever it is loaded.
    for (int n = 0; n < count; ++n) {
        uintptr_t distance = (uintptr_t)frames[n] - (uintptr_t)main;
        if (distance + 0x10000 < 0x20000) digest = digest * 31 + distance;
    }
    digest = digest * 31 + (uintptr_t)__builtin_return_address(0) - (uintptr_t)main;
    most = count > most ? count : most;
    return count * 100 + unwound;
}

PROBED int nest(int depth) {
    ++nests;
    if (depth == 0) return look();
    int below = nest(depth - 1);
    // Compilers make a loop of what they see through.
    __asm__ volatile("" : "+r"(below));
    return below + 10000;
}

int main(void) {
    ready();
    for (int depth = 0; depth < 9; ++depth) printf("%d\n", nest(depth));
    printf("most %d digest %lx\n", most, (unsigned long)digest);
    calls("look", looks);
    calls("nest", nests);
}
