// Calls two functions many times from several threads and says what came of it.
#include <pthread.h>

#include "scene.h"

PROBED long step(long n) { return n ^ (n >> 3); }

PROBED long work(long n) { return step(n) + step(n + 1); }

static void *worker(void *from) {
    long sum = 0;
    for (long n = 0; n < 1000; ++n) sum = sum * 3 + work(n + (long)from);
    return (void *)sum;
}

int main(void) {
    ready();
    unsigned long sum = 0;
    pthread_t threads[4];
    for (long n = 0; n < 4; ++n) pthread_create(&threads[n], 0, worker, (void *)n);
    for (long n = 0; n < 4; ++n) {
        void *result;
        pthread_join(threads[n], &result);
        sum = sum * 31 + (unsigned long)result;
    }
    printf("%lu\n", sum);
    calls("work", 4 * 1000);
    calls("step", 4 * 1000 * 2);
}
