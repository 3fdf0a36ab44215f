// A debugger in small: a child that stops at a breakpoint in each of its calls, counted.
#include <signal.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scene.h"

#define CALLS 20

__asm__(".text\n.globl work\n.type work, @function\nwork:\n"
        "  push %rbx\n  lea 1(%rdi), %rax\n  pop %rbx\n  ret\n.size work, .-work\n");
long work(long);

static long peek(pid_t child) { return ptrace(PTRACE_PEEKTEXT, child, work, 0); }

static void poke(pid_t child, long code) {
    if (ptrace(PTRACE_POKETEXT, child, work, code)) exit(1);
}

// Lets the child go on as `how` until it stops again; by which signal.
static int on(pid_t child, int how) {
    int status;
    if (ptrace(how, child, 0, 0) || waitpid(child, &status, 0) != child) exit(2);
    return WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
}

int main(void) {
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        long sum = 0;
        for (long n = 0; n < CALLS; ++n) sum += work(n);
        _exit(sum != CALLS * (CALLS + 1) / 2);
    }
    waitpid(child, 0, 0);
    printf("ready\nchild %d\n", child);
    fflush(stdout);
    getchar();
    long stops = 0, code = peek(child), stopping = (code & ~0xffL) | 0xcc;
    poke(child, stopping);
    while (on(child, PTRACE_CONT) == SIGTRAP) {
        struct user_regs_struct registers;
        ptrace(PTRACE_GETREGS, child, 0, &registers);
        if (registers.rip != (uintptr_t)work + 1) exit(3);
        --registers.rip;
        ptrace(PTRACE_SETREGS, child, 0, &registers);
        poke(child, code);
        if (on(child, PTRACE_SINGLESTEP) != SIGTRAP) exit(4);
        poke(child, stopping);
        ++stops;
    }
    printf("stops %ld of %d\n", stops, CALLS);
}
