// Functions that begin with the five-byte NOP: leaves that keep values in the red zone, in a process
// that forks while they run.
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"

// Writes below the stack pointer and reads that again, as leaves may.
__asm__(".text\n.globl leaf\n.type leaf, @function\nleaf:\n"
        "  .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n"
        "  movq $0x1234, -8(%rsp)\n"
        "  movq %rdi, -16(%rsp)\n"
        "  movq -8(%rsp), %rax\n"
        "  addq -16(%rsp), %rax\n"
        "  ret\n.size leaf, .-leaf\n");
long leaf(long n);

// The caller keeps its own values there when it jumps into the NOP.
__asm__(".text\n.globl red\n.type red, @function\nred:\n"
        "  movq $0x4321, -8(%rsp)\n"
        "  movq $0x5678, -24(%rsp)\n"
        "  .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n"
        "  movq -8(%rsp), %rax\n"
        "  addq -24(%rsp), %rax\n"
        "  ret\n.size red, .-red\n");
long red(void);

int main(void) {
    ready();
    long sum = 0, children = 0;
    for (int n = 0; n < 20000; ++n) {
        sum += leaf(n) + red();
        if (n % 1000) continue;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            long mine = 0;
            for (int i = 0; i < 100; ++i) mine += leaf(i) + red();
            _exit(mine == 100 * (0x1234 + 0x4321 + 0x5678) + 4950 ? 7 : 8);
        }
        int status = 0;
        waitpid(child, &status, 0);
        children += WIFEXITED(status) && WEXITSTATUS(status) == 7;
    }
    printf("sum %ld children %ld\n", sum, children);
    calls("leaf", 20000 + 20 * 100);
    calls("red", 20000 + 20 * 100);
}
