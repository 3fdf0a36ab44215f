// fork, vfork and exec with probes on: children call what is probed, and the program becomes itself
// again.
#include <sys/wait.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

PROBED long work(long n) {
    long sum = 0;
    for (long i = 0; i < n; ++i) sum += i * n;
    return sum;
}

int main(int argc, char **argv) {
    volatile long sum = 0;
    if (argc > 1 && !strcmp(argv[1], "again")) {
        for (int n = 0; n < 100; ++n) sum += work(n);
        printf("again %ld\n", sum);
        // This call counts those of all lives.
        calls("work", 1000 + 40 * 10 + 10 + 100);
        return 5;
    }
    ready();
    volatile int good = 0;
    for (int n = 0; n < 1000; ++n) {
        sum += work(n);
        if (n % 25) continue;
        pid_t child = fork();
        if (child == 0) {
            long mine = 0;
            for (int i = 0; i < 10; ++i) mine += work(i);
            _exit(mine & 0x7f);
        }
        int status = 0;
        waitpid(child, &status, 0);
        long expected = 0;
        for (long m = 0; m < 10; ++m)
            for (long i = 0; i < m; ++i) expected += i * m;
        good += WIFEXITED(status) && WEXITSTATUS(status) == (expected & 0x7f);
    }
    for (int n = 0; n < 10; ++n) {
        // The child runs in this very memory until it becomes another program.
        pid_t child = vfork();
        if (child == 0) {
            work(3);
            execl("/bin/true", "true", (char *)0);
            _exit(1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        good += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    printf("sum %ld good %d\n", sum, good);
    fflush(stdout);
    execl("/proc/self/exe", argv[0], "again", (char *)0);
    return 1;
}
