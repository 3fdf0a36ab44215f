// Ends within probed frames: `dies abort`, `dies segv`, `dies exit`, `dies kill`, `dies thread`.
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

static volatile int *volatile nowhere;

PROBED long last(const char *how) {
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "segv")) *nowhere = 1;
    if (!strcmp(how, "exit")) exit(23);
    if (!strcmp(how, "kill")) kill(getpid(), SIGKILL);
    return 0;
}

PROBED long before(const char *how) { return last(how) + 1; }

static void *other(void *how) { return (void *)before(how); }

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "exit";
    ready();
    calls("before", 1);
    calls("last", 1);
    pthread_t thread;
    pthread_create(&thread, 0, other, !strcmp(how, "thread") ? "exit" : (void *)how);
    if (!strcmp(how, "thread")) before("nothing");
    pthread_join(thread, 0);
    return 1;
}
