// Calls one function many times in a row, where the stack reaches far.
#include "../hazards/scene.h"

enum { CALLS = 300 };

PROBED int work(int n) {
    return n + 1;
}

int main(void) {
    volatile char room[32768];
    for (int i = 0; i < (int)sizeof room; i++) {
        room[i] = 1;
    }
    ready();
    int n = 0;
    for (int i = 0; i < CALLS; i++) {
        n = work(n);
    }
    printf("%d %d\n", n, room[n]);
    calls("work", CALLS);
}
