// Data within functions: a table whose bytes look like returns, a table of jumps, and constants that
// look like code.
#include "scene.h"

// `lookup(n)`: byte n of a table that lies between its instructions. 0xc3 is RET, 0xe9 a jump.
__asm__(".text\n.globl lookup\n.type lookup, @function\nlookup:\n"
        "  pushq %rbx\n"
        "  leaq 1f(%rip), %rbx\n"
        "  movzbl (%rbx,%rdi), %eax\n"
        "  jmp 2f\n"
        "1: .byte 0xc3, 0xc3, 0x55, 0xe9, 0xc2, 0x0f, 0x1f, 0xc3\n"
        "   .byte 0xcb, 0xc3, 0x5d, 0xc3, 0x90, 0xc9, 0xc3, 0xff\n"
        "2: popq %rbx\n"
        "  ret\n.size lookup, .-lookup\n");
long lookup(long n);

// The same behind its end, within its symbol.
__asm__(".text\n.globl behind\n.type behind, @function\nbehind:\n"
        "  leaq 1f(%rip), %rdx\n"
        "  movzbl (%rdx,%rdi), %eax\n"
        "  ret\n"
        "1: .byte 0xc3, 0x55, 0xc3, 0x5d, 0xc3, 0xc3, 0xc3, 0xc3\n.size behind, .-behind\n");
long behind(long n);

// An immediate operand that holds the bytes of `ret`, which is jumped around, not into.
PROBED unsigned long constant(unsigned long n) { return n + 0xc3c3c3c3c3c3c3c3; }

static long selects, computes;

PROBED long choose(long n) {
    ++selects;
    switch (n % 12) {
        case 0: return n + 11;
        case 1: return n * 3;
        case 2: return n ^ 0x55;
        case 3: return n - 7;
        case 4: return n << 3;
        case 5: return n >> 1;
        case 6: return n | 0x80;
        case 7: return ~n;
        case 8: return n * n;
        case 9: return n % 13;
        case 10: return -n;
        default: return n;
    }
}

PROBED long compute(const unsigned char *program, long n) {
    ++computes;
    static const void *const steps[] = {&&add, &&twice, &&less, &&end};
    goto *steps[*program++];
add:
    n += 5;
    goto *steps[*program++];
twice:
    n *= 2;
    goto *steps[*program++];
less:
    n -= 3;
    goto *steps[*program++];
end:
    return n;
}

int main(void) {
    ready();
    static const unsigned char program[] = {0, 1, 2, 1, 0, 0, 2, 3};
    long table = 0, after = 0, selected = 0, computed = 0;
    unsigned long constants = 0;
    for (long n = 0; n < 2000; ++n) {
        table = table * 31 + lookup(n % 16);
        after = after * 31 + behind(n % 8);
        constants ^= constant((unsigned long)n) * (unsigned long)(n + 1);
        selected += choose(n);
        computed += compute(program, n);
    }
    printf("%ld %ld %lu %ld %ld\n", table, after, constants, selected, computed);
    calls("lookup", 2000);
    calls("behind", 2000);
    calls("constant", 2000);
    calls("choose", selects);
    calls("compute", computes);
}
