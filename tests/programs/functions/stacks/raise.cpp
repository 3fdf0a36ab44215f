// Throws through frames of several kinds. Before each throw it says itself who has called: a line that
// begins `stack`, with the names of functions from the innermost outward, up to `main`.
#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../hazards/scene.h"

PROBED static void say(void) {
    void *frames[64];
    int count = backtrace(frames, 64);
    printf("stack");
    for (int i = 1; i < count; i++) {
        Dl_info info;
        // What returns lies behind its call.
        if (!dladdr((char *)frames[i] - 1, &info) || !info.dli_sname) {
            break;
        }
        int status;
        char *full = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
        std::string name = full ? full : info.dli_sname;
        free(full);
        printf(" %s", name.substr(0, name.find('(')).c_str());
        if (name == "main") {
            break;
        }
    }
    printf("\n");
}

namespace app {
struct Wide {
    // Found by the frame of its caller, whose size is not known when it is compiled.
    PROBED void method(int n) {
        volatile char *room = (volatile char *)__builtin_alloca(n * 64 + 64);
        room[n] = 1;
        say();
        throw std::runtime_error("method");
    }
};
PROBED void deep(int n) {
    if (n == 0) {
        say();
        throw std::logic_error("deep");
    }
    deep(n - 1);
    printf("unreachable\n");
}
}  // namespace app

extern "C" PROBED void aligned(int n) {
    struct alignas(64) {
        char bytes[128];
    } room;
    snprintf(room.bytes, sizeof room.bytes, "%d", n);
    say();
    throw std::string(room.bytes);
}

extern "C" PROBED int work(int kind) {
    try {
        switch (kind) {
            case 0: app::Wide().method(kind + 3); break;
            case 1: app::deep(10); break;
            case 2: aligned(7); break;
        }
    } catch (...) {
        return kind;
    }
    return -1;
}

int main(void) {
    ready();
    for (int kind = 0; kind < 3; kind++) {
        work(kind);
    }
}
