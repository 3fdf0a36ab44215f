// A program that changes its own code while it runs, next to the probes, and gives its code back to
// the kernel to be read anew.
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"

// The operand of the second instruction is what is changed.
__asm__(".text\n.balign 64\n.globl patched\n.type patched, @function\npatched:\n"
        "  pushq %rbx\n"
        "  movl $1, %eax\n"
        "  addq %rdi, %rax\n"
        "  popq %rbx\n"
        "  ret\n.size patched, .-patched\n.balign 64\n");
long patched(long n);

static long works;

PROBED long work(long n) {
    ++works;
    return n * 3;
}

static void protect(int how) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)patched & ~(page - 1);
    if (mprotect((void *)from, page * 2, how)) exit(1);
}

int main(int argc, char **argv) {
    (void)argv;
    ready();
    long sum = 0;
    if (argc > 1) {
        // What the kernel knows of the file is mapped again; the probes are gone for this process.
        for (long n = 0; n < 100; ++n) sum += work(n);
        uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
        madvise((void *)((uintptr_t)work & ~(page - 1)), page, MADV_DONTNEED);
        for (long n = 0; n < 100; ++n) sum += work(n);
        printf("%ld\n", sum);
        printf("calls~ work %ld\n", works);
        return 0;
    }
    long count = 0;
    for (long n = 0; n < 200; ++n) {
        protect(PROT_READ | PROT_WRITE | PROT_EXEC);
        *(volatile uint8_t *)((uintptr_t)patched + 2) = (uint8_t)(n % 100);
        protect(PROT_READ | PROT_EXEC);
        for (long m = 0; m < 10; ++m, ++count) sum = sum * 7 + patched(m) % 1000;
        sum += work(n);
    }
    printf("%ld\n", sum);
    calls("patched", count);
    calls("work", works);
}
