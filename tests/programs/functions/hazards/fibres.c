// Fibres: stacks that are switched by swapcontext within probed frames, and resumed on another thread.
#include <pthread.h>
#include <ucontext.h>

#include "scene.h"

enum { FIBRES = 8, STEPS = 200 };

static ucontext_t scheduler, fibres[FIBRES];
static char stacks[FIBRES][1 << 16];
static long inners, outers, sum;
static int current, live;

PROBED long inner(long n) {
    ++inners;
    // The scheduler goes on while this frame is open.
    swapcontext(&fibres[current], &scheduler);
    return n * 3;
}

PROBED long outer(long n) {
    ++outers;
    return inner(n) + inner(n + 1);
}

static void fibre(int id) {
    for (int n = 0; n < STEPS; ++n) sum += outer(n + id) * (id + 1);
    --live;
}

static void *schedule(void *steps) {
    for (long n = 0; live > 0 && n < (long)steps; ++n) {
        current = (int)(n % FIBRES);
        if (fibres[current].uc_link == 0) continue;
        int before = live;
        swapcontext(&scheduler, &fibres[current]);
        if (live < before) fibres[current].uc_link = 0;
    }
    return 0;
}

int main(void) {
    ready();
    for (int id = 0; id < FIBRES; ++id) {
        getcontext(&fibres[id]);
        fibres[id].uc_stack.ss_sp = stacks[id];
        fibres[id].uc_stack.ss_size = sizeof stacks[id];
        fibres[id].uc_link = &scheduler;
        makecontext(&fibres[id], (void (*)(void))fibre, 1, id);
    }
    live = FIBRES;
    schedule((void *)(long)1000);
    // The rest of them on another thread, in the middle of their calls.
    pthread_t thread;
    pthread_create(&thread, 0, schedule, (void *)(1L << 40));
    pthread_join(thread, 0);
    printf("sum %ld live %d\n", sum, live);
    calls("inner", inners);
    calls("outer", outers);
}
