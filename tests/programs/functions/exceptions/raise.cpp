// C++ exceptions of many kinds, each raised a number of times within a probed function. Every line that
// begins `raised` says how often, and what is to be told: the type and the message.
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "../hazards/scene.h"

namespace app {
struct NotFound : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Deep : NotFound {
    using NotFound::NotFound;
};
struct Plain {
    int code;
};
struct Mixed : Plain, std::logic_error {
    Mixed() : Plain{7}, std::logic_error("mixed") {}
};
}  // namespace app

static const char *const LINES[] = {
    "raised 4\tstd::runtime_error\tthe disk is full",
    "raised 3\tapp::NotFound\tno such thing",
    "raised 3\tapp::Deep\tdeep down",
    "raised 3\tstd::out_of_range\tbeyond the end",
    "raised 3\tapp::Plain\t",
    "raised 3\tapp::Mixed\t",
    "raised 3\tint\t-7",
    "raised 3\tchar const*\tplain text",
    "raised 3\tstd::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >\ta string",
    "raised 3\tstd::bad_alloc\t",
};

extern "C" PROBED int work(int kind) {
    switch (kind) {
        case 0: throw std::runtime_error("the disk is full");
        case 1: throw app::NotFound("no such thing");
        case 2: throw app::Deep("deep down");
        case 3: throw std::out_of_range("beyond the end");
        case 4: throw app::Plain{3};
        case 5: throw app::Mixed();
        case 6: throw - 7;
        case 7: throw "plain text";
        case 8: throw std::string("a string");
        case 9: throw std::bad_alloc();
    }
    return kind;
}

// Raises nothing of its own: what it catches goes on.
extern "C" PROBED int outer(int kind) {
    try {
        return work(kind);
    } catch (...) {
        throw;
    }
}

int main() {
    ready();
    int caught = 0;
    for (int round = 0; round < 3; ++round)
        for (int kind = 0; kind < 11; ++kind) try {
                outer(kind);
            } catch (...) {
                ++caught;
            }
    printf("caught %d\n", caught);
    for (const char *line : LINES) printf("%s\n", line);
    fflush(stdout);
    // Not caught: the program ends by a signal.
    outer(0);
}
