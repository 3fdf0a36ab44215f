// Ends by a signal within a call, on its main thread or on another one; or by exit() within a call.
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "../hazards/scene.h"

static const char *how;

static void handled(int number) { (void)number; }

PROBED void work(int depth) {
    if (depth > 0) {
        work(depth - 1);
        return;
    }
    // Signals that do not end it are no errors.
    signal(SIGUSR1, handled);
    raise(SIGUSR1);
    raise(SIGCHLD);
    if (!strcmp(how, "segv")) *(volatile int *)8 = 1;
    if (!strcmp(how, "fpe")) {
        volatile int seven = 7, zero = 0;
        zero = seven / zero;
    }
    if (!strcmp(how, "exit")) exit(5);
    abort();
}

PROBED void *other(void *unused) {
    work(1);
    return unused;
}

PROBED void waits(pthread_t thread) { pthread_join(thread, NULL); }

int main(int argc, char **argv) {
    how = argv[1];
    ready();
    if (argc > 2) {
        pthread_t thread;
        pthread_create(&thread, NULL, other, NULL);
        waits(thread);
    }
    work(2);
}
