// Functions that begin with instructions which the kernel refuses to probe, or that are odd to step
// over, beside an ordinary one.
#include "scene.h"

#define FUNCTION(name, code)                                                                   \
    __asm__(".text\n.globl " #name "\n.type " #name ", @function\n" #name ":\n" code          \
            "\n.size " #name ", .-" #name "\n");                                               \
    long name(long)

static long word;

FUNCTION(locked, "  lock incq counter(%rip)\n  leaq 1(%rdi), %rax\n  ret");
FUNCTION(longnop, "  .byte 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0\n  leaq 2(%rdi), %rax\n  ret");
FUNCTION(relative, "  movq counter(%rip), %rax\n  addq %rdi, %rax\n  ret");
FUNCTION(looping, "1: decq %rdi\n  jns 1b\n  movq $3, %rax\n  ret");
FUNCTION(calling, "  call 1f\n1: popq %rax\n  leaq 1b(%rip), %rdx\n  subq %rdx, %rax\n  leaq 4(%rax), %rax\n  ret");
FUNCTION(flags, "  cmpq $10, %rdi\n  pushfq\n  popq %rax\n  andq $0xc1, %rax\n  ret");
FUNCTION(stacked, "  subq $8, %rsp\n  movq %rsp, %rax\n  addq $8, %rsp\n  subq %rsp, %rax\n  ret");
FUNCTION(repeated, "  movq $8, %rcx\n  leaq word_buffer(%rip), %rdx\n  pushq %rdi\n  movq %rdx, %rdi\n"
                   "  movb $7, %al\n  rep stosb\n  popq %rdi\n  movq word_buffer(%rip), %rax\n  ret");
FUNCTION(returning, "  ret $0");
FUNCTION(trapping, "  pushfq\n  popq %rax\n  andq $0x100, %rax\n  ret");
FUNCTION(restoring, "  pushfq\n  cld\n  leaq 10(%rdi), %rax\n  popfq\n  ret");
FUNCTION(repeating, "  rep stosb\n  movl $11, %eax\n  ret");
FUNCTION(waiting, "  pause\n  leaq 9(%rdi), %rax\n  ret");

long counter, word_buffer;

PROBED long plain(long n) { return n + word; }

// The text that `repeating` fills, eight bytes of it.
static long fill(long n) {
    void *to = &word_buffer;
    long count = 8, result = n;
    __asm__ volatile("call repeating" : "+D"(to), "+c"(count), "+a"(result) : : "memory", "cc");
    return result + word_buffer;
}

int main(void) {
    ready();
    unsigned long sum = 0;
    for (long n = 0; n < 500; ++n) {
        sum = sum * 31 + (unsigned long)locked(n);
        sum = sum * 31 + (unsigned long)longnop(n);
        sum = sum * 31 + (unsigned long)relative(n);
        sum = sum * 31 + (unsigned long)looping(n);
        sum = sum * 31 + (unsigned long)calling(n);
        sum = sum * 31 + (unsigned long)flags(n);
        sum = sum * 31 + (unsigned long)stacked(n);
        sum = sum * 31 + (unsigned long)repeated(n);
        returning(n);
        sum = sum * 31 + (unsigned long)trapping(n);
        sum = sum * 31 + (unsigned long)restoring(n);
        sum = sum * 31 + (unsigned long)fill(n);
        sum = sum * 31 + (unsigned long)waiting(n);
        sum = sum * 31 + (unsigned long)plain(n);
    }
    printf("%lu %ld\n", sum, counter);
    const char *all[] = {"locked", "longnop", "relative", "looping", "calling", "flags", "stacked",
                         "repeated", "returning", "waiting", "trapping", "restoring", "repeating"};
    for (int n = 0; n < 13; ++n) calls(all[n], 500);
    calls("plain", 500);
}
