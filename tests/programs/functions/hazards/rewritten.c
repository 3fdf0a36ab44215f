// A program that has changed its own code before anybody looks at it, as what patches itself to the
// processor at hand does, or is patched while it runs.
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"

// The operand of its first instruction is changed.
__asm__(".text\n.balign 64\n.globl patched\n.type patched, @function\npatched:\n"
        "  movl $1, %eax\n"
        "  addq %rdi, %rax\n"
        "  ret\n.size patched, .-patched\n");
long patched(long n);

// The instruction that it ends with is another one.
__asm__(".balign 64\n.globl led\n.type led, @function\nled:\n"
        "  pushq %rbx\n"
        "  popq %rbx\n"
        "  jmp one\n.size led, .-led\n.balign 64\n");
long led(long n);

__attribute__((noipa, used)) long one(long n) { return n + 1; }
__attribute__((noipa, used)) long two(long n) { return n + 2; }

// On the page of both, and as it is in the file.
static long works;
PROBED long work(long n) {
    ++works;
    return n * 3;
}

static void rewrite(void) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)patched & ~(page - 1);
    if (mprotect((void *)from, page * 2, PROT_READ | PROT_WRITE | PROT_EXEC)) exit(1);
    *(volatile uint8_t *)((uintptr_t)patched + 1) = 5;
    int32_t distance;
    memcpy(&distance, (void *)((uintptr_t)led + 3), sizeof distance);
    distance += (int32_t)((uintptr_t)two - (uintptr_t)one);
    memcpy((void *)((uintptr_t)led + 3), &distance, sizeof distance);
    if (mprotect((void *)from, page * 2, PROT_READ | PROT_EXEC)) exit(1);
}

// With `beside` it tells of what is as it is in the file alone; with `plain` that is everything.
int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    if (strcmp(how, "plain")) rewrite();
    ready();
    long sum = 0, count = 0;
    for (long n = 0; n < 100; ++n, ++count) sum = (sum * 7 + patched(n) + led(n) + work(n)) % 1000003;
    printf("%ld\n", sum);
    if (strcmp(how, "beside")) {
        calls("patched", count);
        calls("led", count);
    }
    calls("work", works);
}
