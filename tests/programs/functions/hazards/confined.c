// Seccomp: strict mode, and filters that kill, refuse or trap every call but the few that are needed.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "scene.h"

static long works;

PROBED long work(long n) {
    ++works;
    return n * n % 17;
}

PROBED long refused(void) {
    // In two of the modes there is an answer.
    return syscall(SYS_getppid);
}

static volatile long trapped;

static void on_sys(int number) {
    (void)number;
    ++trapped;
}

static void filter(unsigned verdict) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, verdict),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog all = {sizeof program / sizeof *program, program};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all)) exit(9);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "strict";
    ready();
    int asks = 0;
    signal(SIGSYS, on_sys);
    if (!strcmp(mode, "kill")) filter(SECCOMP_RET_KILL_PROCESS);
    if (!strcmp(mode, "errno")) filter(SECCOMP_RET_ERRNO | EPERM), asks = 1;
    if (!strcmp(mode, "trap")) filter(SECCOMP_RET_TRAP), asks = 1;
    if (!strcmp(mode, "strict")) prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    long sum = 0, answers = 0;
    for (long n = 0; n < 5000; ++n) sum += work(n);
    for (long n = 0; asks && n < 100; ++n) answers += refused() < 0;
    // Strict mode allows `write` and `exit` alone.
    char text[200];
    int length = snprintf(text, sizeof text,
                          "%s %ld answers %ld trapped %ld\ncalls work %ld\ncalls refused %d\n",
                          mode, sum, strcmp(mode, "errno") ? 0 : answers, trapped, works,
                          asks ? 100 : 0);
    if (write(1, text, (size_t)length) != length) return 1;
    if (!strcmp(mode, "kill")) syscall(SYS_getppid);
    syscall(!strcmp(mode, "strict") ? SYS_exit : SYS_exit_group, 3);
}
