// Throws out of functions that are inlined into each other, three times for each line that it is sent. Before
// each throw it says itself who has called: a line that begins `stack`, with the addresses of the calls in the
// file, up to `main`.
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <stdexcept>

#include "../hazards/scene.h"

extern char __executable_start;

// In the file, which is loaded as it says if the program moves not.
static unsigned long in_file(char *address) {
    struct link_map *map;
    Dl_info info;
    dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP);
    return address - (char *)map->l_addr;
}

PROBED static void say(void) {
    void *frames[64];
    int count = backtrace(frames, 64);
    printf("stack");
    for (int i = 1; i < count; i++) {
        Dl_info info;
        if (!dladdr((char *)frames[i] - 1, &info) || info.dli_fbase != (void *)&__executable_start) {
            break;
        }
        // What returns lies behind its call.
        printf(" %#lx", in_file((char *)frames[i] - 1));
    }
    printf("\n");
}

#define INLINED __attribute__((always_inline)) inline

volatile int sink;

namespace app {
namespace {
INLINED int hidden(int n) {
    sink += n;
    if (n > 2) {
        // On one line: it is the same for both.
        say(), throw std::range_error("hidden");
    }
    return sink;
}
}  // namespace

template <typename T>
struct Box {
    T value;
    INLINED T open(T by) {
        sink += by;
        return value + hidden(by);
    }
    INLINED T twice(T by) {
        return open(by) + open(by + 1);
    }
};

PROBED int outer(int n) {
    Box<int> box{n};
    auto within = [&](int by) __attribute__((always_inline)) { return box.twice(by) + sink; };
    int sum = 0;
    for (int i = 0; i < 2; i++) {
        sum += within(n + i);
    }
    return sum;
}
}  // namespace app

static INLINED int plain(int n) {
    return app::outer(n) +
           app::outer(n + 1);
}

extern "C" PROBED int work(int kind) {
    try {
        return plain(kind);
    } catch (const std::exception &) {
        return kind;
    }
}

int main(void) {
    ready();
    int c = 0;
    do {
        for (int kind = 0; kind < 3; kind++) {
            work(kind);
        }
        fflush(stdout);
        while ((c = getchar()) != EOF && c != '\n') {
        }
    } while (c != EOF);
}
