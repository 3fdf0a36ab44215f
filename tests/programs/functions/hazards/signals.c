// Signals that interrupt probed functions, handlers on a stack of their own that call probed
// functions, one signal within another, and a jump out of a handler.
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#include "scene.h"

static char stack[1 << 16];
static sigjmp_buf out;
static volatile long handled, nested, ticks;
static long busies, tallies, faults;

PROBED long tally(long n) {
    n *= 2;
    // Not the first instruction: no probe can be on one with a lock.
    __asm__ volatile("" : "+r"(n) : : "memory");
    __atomic_add_fetch(&tallies, 1, __ATOMIC_RELAXED);
    return n;
}

PROBED long busy(long n) {
    ++busies;
    long sum = 0;
    for (long i = 0; i < 50; ++i) sum = sum * 31 + i + n;
    if (n % 100 == 0) raise(SIGUSR1);
    return sum;
}

PROBED long fault(volatile long *where) {
    ++faults;
    return *where;
}

static void on_usr1(int number) {
    (void)number;
    handled += tally(1) / 2;
    if (handled % 2) raise(SIGUSR2);
}

static void on_usr2(int number) {
    (void)number;
    nested += tally(1) / 2;
}

static void on_segv(int number) {
    (void)number;
    siglongjmp(out, 1);
}

static void on_tick(int number) {
    (void)number;
    ++ticks;
    tally(ticks);
}

static void on(int signal, void (*handler)(int), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(signal, &action, 0);
}

int main(void) {
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, 0);
    on(SIGUSR1, on_usr1, SA_ONSTACK);
    on(SIGUSR2, on_usr2, SA_ONSTACK);
    on(SIGSEGV, on_segv, SA_ONSTACK);
    on(SIGALRM, on_tick, SA_RESTART);
    ready();
    // Often enough to come in the middle of an instruction that the kernel steps over.
    struct itimerval often = {{0, 300}, {0, 300}};
    setitimer(ITIMER_REAL, &often, 0);
    unsigned long sum = 0;
    for (long n = 0; n < 20000; ++n) sum += busy(n);
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, 0);
    volatile int jumped = 0;
    for (volatile int n = 0; n < 100; ++n) {
        if (sigsetjmp(out, 1)) {
            ++jumped;
            continue;
        }
        sum += fault((volatile long *)8);
    }
    printf("sum %lu handled %ld nested %ld jumped %d\n", sum, handled, nested, jumped);
    calls("busy", busies);
    calls("fault", faults);
    printf("calls~ tally %ld\n", tallies);
}
