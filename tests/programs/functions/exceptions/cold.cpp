// Exceptions of types of which the names are in no memory when they are raised. Lines that begin `raised`
// say how often, and what is to be told.
#include <cstdint>
#include <stdexcept>
#include <sys/mman.h>
#include <typeinfo>

#include "../hazards/scene.h"

namespace app {
struct Plain {
    int code;
};
struct Base : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Cold : Base {
    using Base::Base;
};
}  // namespace app

// The page is the file's and nothing else's: it comes back when it is used.
static void forget(const std::type_info &type) {
    uintptr_t page = (uintptr_t)type.name() & ~(uintptr_t)4095;
    if (madvise((void *)page, 4096, MADV_DONTNEED)) exit(1);
}

extern "C" PROBED void work(int kind, const app::Cold &cold) {
    // Made before: it may have used what is about to be forgotten.
    if (kind == 0) {
        app::Plain plain{7};
        forget(typeid(app::Plain));
        throw plain;
    }
    forget(typeid(app::Cold));
    forget(typeid(app::Base));
    throw cold;
}

int main() {
    ready();
    app::Cold cold("a message");
    int caught = 0;
    for (int round = 0; round < 6; ++round) try {
            work(round % 2, cold);
        } catch (const app::Plain &) {
            ++caught;
        } catch (const std::exception &) {
            ++caught;
        }
    printf("caught %d\n", caught);
    printf("raised 3\tapp::Plain\t\n");
    printf("raised 3\tapp::Cold\ta message\n");
    // What could not be read is read later, as long as this is there.
    ready();
    return 4;
}
