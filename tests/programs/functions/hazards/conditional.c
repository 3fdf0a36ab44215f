// Functions that end at a conditional jump into another one: each condition, by a short jump and by a near
// one, with every combination of the flags; in a loop that runs hot, in recursion, from one into the other,
// and into what is not probed. What is jumped into sees the flags and the data below the stack pointer.
#include "scene.h"

#define FUNCTION(name, code)                                                                       \
    __asm__(".text\n.type " #name ", @function\n" #name ":\n" code "\n.size " #name ", .-" #name "\n"); \
    long name(long, long)

// Each condition, by its name and its code.
#define EACH(DO)                                                                                   \
    DO(o, 0x0) DO(no, 0x1) DO(b, 0x2) DO(ae, 0x3) DO(e, 0x4) DO(ne, 0x5) DO(be, 0x6) DO(a, 0x7)    \
    DO(s, 0x8) DO(ns, 0x9) DO(p, 0xa) DO(np, 0xb) DO(l, 0xc) DO(ge, 0xd) DO(le, 0xe) DO(g, 0xf)

// Sets the flags to the first argument, jumps or returns the flags that it had.
#define JUMPING(form, cc, jump)                                                                    \
    FUNCTION(form##_##cc, "  pushq %rdi\n  popfq\n" jump "\n  pushfq\n  popq %rax\n"               \
                          "  andl $0x8c5, %eax\n  ret")
// What it jumps into keeps the flags, too, and what lies below the stack pointer.
#define TAKEN(form, cc)                                                                            \
    FUNCTION(form##_to_##cc, "  movq %rdi, -8(%rsp)\n  pushq %rbx\n  pushfq\n  popq %rax\n"        \
                             "  popq %rbx\n  andl $0x8c5, %eax\n  orl $0x10000, %eax\n  ret")

#define BOTH(cc, code)                                                                             \
    TAKEN(short, cc);                                                                              \
    JUMPING(short, cc, "  .byte 0x70 + " #code "\n  .byte short_to_" #cc " - (. + 1)");            \
    TAKEN(near, cc);                                                                               \
    JUMPING(near, cc, "  .byte 0x0f, 0x80 + " #code "\n  .long near_to_" #cc " - (. + 4)");
EACH(BOTH)

// Counts down, and leaves at the end or at a number that it is given.
FUNCTION(after, "  pushq %rbx\n  leaq 7(%rdi), %rax\n  popq %rbx\n  ret");
FUNCTION(met, "  pushq %rbx\n  leaq 9(%rdi), %rax\n  popq %rbx\n  ret");
FUNCTION(hot, "  pushq %rbx\n  popq %rbx\n1: cmpq %rsi, %rdi\n  je met\n  subq $1, %rdi\n  js after\n  jmp 1b");

// As deep as it is told; the innermost one jumps to the bottom.
FUNCTION(bottom, "  pushq %rbx\n  xorl %eax, %eax\n  popq %rbx\n  ret");
FUNCTION(down, "  nop\n  testq %rdi, %rdi\n  jle bottom\n  pushq %rdi\n  decq %rdi\n  call down\n"
               "  popq %rdi\n  addq %rdi, %rax\n  ret");

// Jump into each other as long as there is something to count down.
long odd(long, long);
FUNCTION(even, "  nop\n  subq $1, %rdi\n  jae odd\n  movl $1, %eax\n  ret");
FUNCTION(odd, "  nop\n  subq $1, %rdi\n  jae even\n  xorl %eax, %eax\n  ret");

// What it jumps into is not probed.
FUNCTION(hidden, "  leaq 3(%rdi), %rax\n  ret");
FUNCTION(to_hidden, "  nop\n  testq %rdi, %rdi\n  jg hidden\n  pushq %rbx\n  movq %rdi, %rax\n  popq %rbx\n  ret");

// Several ends: the first that is taken.
FUNCTION(choose, "  nop\n  cmpq $10, %rdi\n  jl after\n  je met\n  cmpq $20, %rdi\n  ja hidden\n"
                 "  leaq (%rdi,%rdi), %rax\n  ret");

static const long bits[] = {1 << 0, 1 << 2, 1 << 6, 1 << 7, 1 << 11};
static long taken[2][16];

static long every(long (*function)(long, long), long *count) {
    unsigned long sum = 0;
    for (int chosen = 0; chosen < 32; ++chosen) {
        long flags = 0;
        for (int bit = 0; bit < 5; ++bit)
            if (chosen >> bit & 1) flags |= bits[bit];
        long result = function(flags, 0);
        if ((result & 0xffff) != flags) printf("flags %lx became %lx\n", flags, result);
        *count += result >> 16;
        sum = sum * 31 + (unsigned long)result;
    }
    return (long)sum;
}

enum { ROUNDS = 4 };

// What is only probed if there is no argument: what is jumped into.
static int alone;
static void also(const char *name, long count) {
    if (!alone) calls(name, count);
}

int main(int count, char **words) {
    (void)words;
    alone = count > 1;
    ready();
    unsigned long sum = 0;
    for (int round = 0; round < ROUNDS; ++round) {
#define RUN(cc, code)                                                                              \
    sum = sum * 31 + (unsigned long)every(short_##cc, &taken[0][code]);                            \
    sum = sum * 31 + (unsigned long)every(near_##cc, &taken[1][code]);
        EACH(RUN)
    }
    printf("%lx\n", sum);
#define COUNT(cc, code)                                                                            \
    calls("short_" #cc, ROUNDS * 32), also("short_to_" #cc, taken[0][code]);                      \
    calls("near_" #cc, ROUNDS * 32), also("near_to_" #cc, taken[1][code]);
    EACH(COUNT)

    long ends = 0, meets = 0, chosen = 0;
    for (long n = 0; n < 50; ++n) {
        // Goes on to the end, or is met half way.
        sum = sum * 31 + (unsigned long)hot(n * 10, -1);
        sum = sum * 31 + (unsigned long)hot(n * 10, n * 5);
        ++ends;
        ++meets;
    }
    calls("hot", 100);
    long bottoms = 0, downs = 0;
    for (long n = 0; n < 100; ++n, ++bottoms) {
        sum = sum * 31 + (unsigned long)down(n, 0);
        downs += n + 1;
    }
    sum = sum * 31 + (unsigned long)down(4000, 0);
    calls("down", downs + 4001);
    also("bottom", bottoms + 1);
    printf("%ld %ld\n", even(1000, 0), even(1001, 0));
    calls("even", 501 + 501);
    also("odd", 500 + 501);
    for (long n = -50; n < 50; ++n) sum = sum * 31 + (unsigned long)to_hidden(n, 0);
    calls("to_hidden", 100);
    for (long n = -20; n < 40; ++n, ++chosen) {
        sum = sum * 31 + (unsigned long)choose(n, 0);
        ends += n < 10;
        meets += n == 10;
    }
    calls("choose", chosen);
    also("after", ends);
    also("met", meets);
    printf("%lx\n", sum);
}
