// Arguments that lead nowhere: what a probe reads must never be what the program trips over.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"

struct node {
    struct node *next;
    const char *name;
    long value;
};

static long takes, walks, ends;

PROBED long take(const char *text, struct node *node, const void *bytes) {
    ++takes;
    return (text != 0) + (node != 0) * 2 + (bytes != 0) * 4;
}

PROBED long walk(struct node *node, long most) {
    ++walks;
    long sum = 0;
    for (; node && most-- > 0; node = node->next) sum += node->value + (long)strlen(node->name);
    return sum;
}

// A text that ends where memory does.
PROBED long end(const char *text) {
    ++ends;
    return text[0] + text[1];
}

int main(void) {
    ready();
    long page = sysconf(_SC_PAGESIZE), sum = 0;
    char *two = mmap(0, (size_t)page * 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(two + page, (size_t)page);
    memset(two, 'x', (size_t)page);
    struct node loop[3] = {{&loop[1], "a", 1}, {&loop[2], "bb", 2}, {&loop[0], "ccc", 3}};
    const char *nowhere[] = {0, (char *)8, (char *)4095, (char *)0xdeadbeef000, (char *)-1,
                             (char *)0x8000000000000000, two + page - 2, two};
    for (long n = 0; n < 4000; ++n) {
        const char *bad = nowhere[n % 8];
        sum += take(bad, (struct node *)nowhere[(n + 3) % 8], nowhere[(n + 5) % 8]);
        sum += walk(&loop[n % 3], n % 10);
        sum += end(two + page - 2);
    }
    // Memory that comes and goes while it is pointed at.
    for (long n = 0; n < 500; ++n) {
        madvise(two, (size_t)page, MADV_DONTNEED);
        sum += take(two, (struct node *)two, two);
        memset(two, 'y', 64);
    }
    printf("%ld\n", sum);
    calls("take", takes);
    calls("walk", walks);
    calls("end", ends);
}
