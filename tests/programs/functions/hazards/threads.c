// Threads that come and go, and that end within probed frames: pthread_exit and pthread_cancel.
#include <pthread.h>
#include <unistd.h>

#include "scene.h"

static long waits;
static long cleaned;
static int gate[2];

static void cleanup(void *unused) {
    (void)unused;
    __atomic_add_fetch(&cleaned, 1, __ATOMIC_RELAXED);
}

PROBED long work(long n) {
    long sum = 0;
    for (long i = 0; i < n % 100; ++i) sum += i ^ n;
    return sum;
}

PROBED long leave(long n) {
    if (n % 2) pthread_exit((void *)(n + work(n)));
    return n;
}

PROBED long wait_here(long n) {
    char byte;
    __atomic_add_fetch(&waits, 1, __ATOMIC_RELAXED);
    pthread_cleanup_push(cleanup, 0);
    // Nobody writes: it is cancelled here.
    n += read(gate[0], &byte, 1);
    pthread_cleanup_pop(0);
    return n;
}

static void *leaver(void *n) { return (void *)leave((long)n); }
static void *waiter(void *n) { return (void *)wait_here((long)n); }
static void *worker(void *n) {
    long sum = 0;
    for (long i = 0; i < 500; ++i) sum += work(i + (long)n);
    return (void *)sum;
}

int main(void) {
    ready();
    if (pipe(gate)) return 1;
    long sum = 0;
    for (long n = 0; n < 300; ++n) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, 0, leaver, (void *)n);
        pthread_join(thread, &result);
        sum += (long)result;
    }
    int cancelled = 0;
    for (long n = 0; n < 100; ++n) {
        pthread_t thread;
        void *result;
        pthread_create(&thread, 0, waiter, (void *)n);
        while (__atomic_load_n(&waits, __ATOMIC_RELAXED) != n + 1) usleep(50);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        cancelled += result == PTHREAD_CANCELED;
    }
    pthread_t workers[8];
    for (long n = 0; n < 8; ++n) pthread_create(&workers[n], 0, worker, (void *)n);
    for (long n = 0; n < 8; ++n) {
        void *result;
        pthread_join(workers[n], &result);
        sum += (long)result;
    }
    printf("%ld cancelled %d cleaned %ld\n", sum, cancelled, cleaned);
    calls("leave", 300);
    calls("wait_here", waits);
    calls("work", 150 + 8 * 500);
}
