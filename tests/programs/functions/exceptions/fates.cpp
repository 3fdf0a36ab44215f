// Exceptions that are caught, by whom ever, and one that is not. Every line that begins `fate` says how
// many there are with a message, and what becomes of them.
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>

#include "../hazards/scene.h"

namespace app {
struct Inside : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Outside : Inside {
    using Inside::Inside;
};
struct Again : Inside {
    using Inside::Inside;
};
struct Nested : Inside {
    using Inside::Inside;
};
struct Kept : Inside {
    using Inside::Inside;
};
struct Elsewhere : Inside {
    using Inside::Inside;
};
struct Last : Inside {
    using Inside::Inside;
};
}  // namespace app

static std::exception_ptr kept;

PROBED void inner() { throw app::Inside("inside"); }

PROBED int work(int kind) {
    switch (kind) {
        case 0:
            try {
                inner();
            } catch (const app::Inside &) {
            }
            return 0;
        case 1: throw app::Outside("outside");
        case 2:
            try {
                throw app::Again("again");
            } catch (...) {
                throw;
            }
        case 3:
            try {
                throw app::Nested("first");
            } catch (...) {
                try {
                    throw app::Nested("second");
                } catch (...) {
                }
                throw;
            }
        case 4:
            try {
                throw app::Kept("kept");
            } catch (...) {
                kept = std::current_exception();
            }
            std::rethrow_exception(kept);
        case 5: throw app::Elsewhere("elsewhere");
    }
    return kind;
}

PROBED void last() { throw app::Last("last"); }

PROBED void fenced() noexcept { last(); }

static int caught;

static void attempt(int kind) {
    try {
        work(kind);
    } catch (const std::exception &) {
        ++caught;
    }
}

int main(int, char **argv) {
    ready();
    for (int round = 0; round < 3; ++round)
        for (int kind = 0; kind < 5; ++kind) attempt(kind);
    std::thread(attempt, 5).join();
    printf("caught %d\n", caught);
    printf("fate 3\tinside\tcaught\n");
    printf("fate 3\toutside\tcaught\n");
    printf("fate 3\tagain\tcaught\n");
    printf("fate 3\tfirst\tcaught\n");
    printf("fate 3\tsecond\tcaught\n");
    printf("fate 3\tkept\tcaught\n");
    printf("fate 1\telsewhere\tcaught\n");
    const char *how = argv[1];
    // Who takes what is about to leave a `noexcept` function has no name in the library. What was caught
    // and goes on has left the function that raised it, whose span is over.
    printf("fate 1\tlast\t%s\n", argv[2]);
    if (strcmp(how, "rethrow")) printf("fate 1\tfatal signal 6\tnot caught\n");
    fflush(stdout);
    if (!strcmp(how, "noexcept")) fenced();
    if (!strcmp(how, "thread")) std::thread(last).join();
    if (!strcmp(how, "rethrow")) try {
            last();
        } catch (...) {
            throw;
        }
    last();
}
