// Functions of one instruction: a return, and jumps into a probed function, into one that is not probed,
// into a return, through a register, and into one that throws. They are called by threads, by a signal's
// delivery, and from where a caller keeps data below the stack pointer.
#include <pthread.h>
#include <signal.h>

#include <stdexcept>

#include "scene.h"

#define FUNCTION(name, code)                                                                   \
    __asm__(".text\n.globl " #name "\n.type " #name ", @function\n" #name ":\n" code           \
            "\n.size " #name ", .-" #name "\n");

FUNCTION(nothing, "  ret")
FUNCTION(marked, "  endbr64\n  ret")
FUNCTION(pops, "  ret $16")
FUNCTION(onwards, "  jmp adds")
FUNCTION(marked_onwards, "  endbr64\n  jmp adds")
FUNCTION(elsewhere, "  jmp hidden")
FUNCTION(to_nothing, "  jmp nothing")
FUNCTION(by_pointer, "  jmp *%rsi")
FUNCTION(to_throw, "  jmp throws")
FUNCTION(handler, "  ret")
// Keeps values below the stack pointer across a jump through a register: what is probed must not write
// there.
FUNCTION(red, "  movq %rdi, -8(%rsp)\n  movq $0x77, -64(%rsp)\n  leaq 1f(%rip), %rdx\n  jmp *%rdx\n"
              "1: movq -8(%rsp), %rax\n  addq -64(%rsp), %rax\n  ret")

extern "C" {
void nothing(long);
void marked(long);
void handler(int);
long onwards(long), marked_onwards(long), elsewhere(long), red(long);
void to_nothing(long);
long by_pointer(long, long (*)(long));
long to_throw(long);

PROBED long adds(long n) { return n * 3 + 1; }

PROBED long hidden(long n) { return n * 5 + 2; }

PROBED long throws(long n) {
    if (n % 2) throw std::runtime_error("odd");
    return n;
}
}

// Two words on the stack that the callee takes away.
static void call_pops() {
    __asm__ volatile("subq $256, %%rsp\n pushq $1\n pushq $2\n call pops\n addq $256, %%rsp" ::: "memory", "cc");
}

enum { THREADS = 4, ROUNDS = 300 };

static void *run(void *) {
    unsigned long sum = 0;
    for (long n = 0; n < ROUNDS; ++n) {
        nothing(n);
        marked(n);
        call_pops();
        sum = sum * 31 + (unsigned long)onwards(n);
        sum = sum * 31 + (unsigned long)marked_onwards(n);
        sum = sum * 31 + (unsigned long)elsewhere(n);
        to_nothing(n);
        sum = sum * 31 + (unsigned long)by_pointer(n, adds);
        sum = sum * 31 + (unsigned long)red(n);
        try {
            sum = sum * 31 + (unsigned long)to_throw(n);
        } catch (const std::exception &) {
            sum += 7;
        }
        raise(SIGUSR1);
    }
    return (void *)sum;
}

int main(int count, char **) {
    signal(SIGUSR1, handler);
    ready();
    pthread_t threads[THREADS];
    for (auto &thread : threads) pthread_create(&thread, nullptr, run, nullptr);
    for (auto &thread : threads) {
        void *sum;
        pthread_join(thread, &sum);
        printf("%lx\n", (unsigned long)sum);
    }
    long each = THREADS * ROUNDS;
    calls("nothing", each * 2);
    const char *all[] = {"marked", "pops", "onwards", "marked_onwards", "elsewhere", "to_nothing",
                         "by_pointer", "to_throw", "handler"};
    for (auto *name : all) calls(name, each);
    // If what is jumped into is probed, too.
    if (count == 1) {
        calls("adds", each * 3);
        calls("throws", each);
    }
}
