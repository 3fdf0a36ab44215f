// Ends by a signal, within a function that another signal has interrupted if it is told so.
#include <signal.h>
#include <string.h>

#include "../hazards/scene.h"

PROBED int wrong(volatile int *at) { return *at + 1; }

PROBED static void handler(int number) {
    (void)number;
    printf("%d\n", wrong((volatile int *)8));
}

PROBED int work(int interrupts) {
    if (interrupts) {
        signal(SIGUSR1, handler);
        raise(SIGUSR1);
        return 1;
    }
    return wrong((volatile int *)8) + 1;
}

int main(int argc, char **argv) {
    (void)argv;
    ready();
    return work(argc > 1) + 1;
}
