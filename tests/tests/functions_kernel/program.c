// A program whose every probed instruction is known: it prints their addresses, then does what each
// line on its input says, and prints what came out.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

long probed(long a, long b, const void *pointer, const void *other, long e, long f);
long depth(long n);
extern char probed_return[], depth_return[], refused[], many[], many_end[];
void many_run(void);
long locked(long a);

__asm__(
    ".text\n"
    // push %rbp is emulated; the return is stepped.
    ".globl probed, probed_return\n"
    "probed: push %rbp\n mov %rsp, %rbp\n lea (%rdi,%rsi), %rax\n pop %rbp\n"
    "probed_return: ret\n"
    ".globl depth, depth_return\n"
    "depth: push %rbx\n mov %rdi, %rbx\n xor %eax, %eax\n test %rdi, %rdi\n je 1f\n"
    " lea -1(%rdi), %rdi\n call depth\n 1: add %rbx, %rax\n pop %rbx\n"
    "depth_return: ret\n"
    // The kernel does not step a lock prefix.
    ".globl locked, refused\n"
    "locked: push %rdi\n refused: lock addq $1, (%rsp)\n pop %rax\n ret\n"
    // Fifty thousand functions of three bytes.
    ".globl many, many_end\n"
    "many: .rept 50000\n push %rbp\n pop %rbp\n ret\n .endr\n"
    "many_end: ret\n");

static char *page;

static void *call_from_thread(void *sum) {
    *(long *)sum = probed(1, 2, "thread", 0, 0, 0);
    return 0;
}

int main(int argc, char **argv) {
    // Its last 16 bytes are readable, and nothing behind them.
    page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + 4096, 4096, PROT_NONE);
    memset(page, 'x', 4096);
    printf("probed %p\nprobed_return %p\ndepth %p\ndepth_return %p\nrefused %p\nlocked %p\nmany %p\npage %p\n",
           (void *)probed, (void *)probed_return, (void *)depth, (void *)depth_return,
           (void *)refused, (void *)locked, (void *)many, (void *)page);
    printf("ready\n");
    fflush(stdout);
    char line[256], text[256];
    long n;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "text %255s", text) == 1)
            printf("%ld\n", probed(strlen(text), -5, text, &text[2], 7, 8));
        else if (sscanf(line, "edge %ld", &n) == 1)
            printf("%ld\n", probed(n, 0, page + 4096 - n, (void *)8, 0, 0));
        else if (!strncmp(line, "wild", 4))
            printf("%ld\n", probed(1, 1, page + 4096, (void *)0xdead000000, 0, 0));
        else if (sscanf(line, "depth %ld", &n) == 1)
            printf("%ld\n", depth(n));
        else if (sscanf(line, "locked %ld", &n) == 1)
            printf("%ld\n", locked(n));
        else if (sscanf(line, "times %ld", &n) == 1) {
            long sum = 0;
            for (long i = 0; i < n; i++)
                sum += probed(i, 1, "", 0, 0, 0);
            printf("%ld\n", sum);
        } else if (!strncmp(line, "thread", 6)) {
            pthread_t thread;
            long sum = 0;
            pthread_create(&thread, 0, call_from_thread, &sum);
            pthread_join(thread, 0);
            printf("%ld\n", sum);
        } else if (!strncmp(line, "many", 4)) {
            for (char *function = many; function < many_end; function += 3)
                ((void (*)(void))function)();
            printf("many\n");
        } else if (!strncmp(line, "fork", 4)) {
            int status = 0;
            pid_t child = fork();
            if (child == 0)
                _exit(probed(20, 3, "child", 0, 0, 0));
            waitpid(child, &status, 0);
            printf("%d %d\n", child, WEXITSTATUS(status));
        } else if (!strncmp(line, "exec", 4)) {
            printf("exec\n");
            fflush(stdout);
            execv("/proc/self/exe", argv);
        }
        fflush(stdout);
    }
    return 0;
}
