// Code that the loader writes into (DT_TEXTREL): what is in the file is not what runs.
#include "scene.h"

long datum = 42;
static long reads, works;

// The number that it begins with is the address of `datum`, once the loader has been there.
__asm__(".text\n.globl read_datum\n.type read_datum, @function\nread_datum:\n"
        "  movabsq $datum, %rax\n"
        "  movq (%rax), %rax\n"
        "  ret\n.size read_datum, .-read_datum\n");
long read_datum(void);

// Where it jumps to is known to the loader alone.
__asm__(".text\n.globl jump_away\n.type jump_away, @function\njump_away:\n"
        "  movabsq $read_datum, %rax\n"
        "  jmp *%rax\n.size jump_away, .-jump_away\n");
long jump_away(void);

PROBED long work(long n) {
    ++works;
    return n * 3;
}

// With an argument it tells of what is as it is in the file alone.
int main(int argc, char **argv) {
    (void)argv;
    ready();
    long sum = 0;
    for (long n = 0; n < 100; ++n) {
        sum += read_datum() + jump_away() + work(n);
        reads += 2;
    }
    printf("%ld\n", sum);
    if (argc == 1) {
        calls("read_datum", reads);
        calls("jump_away", reads / 2);
    }
    calls("work", works);
}
