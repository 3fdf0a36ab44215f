// C++ exceptions that unwind through probed frames, with cleanups, a rethrow and a foreign catch.
#include <stdexcept>
#include <string>

#include "scene.h"

static long cleaned, inners, middles, outers;

struct Cleanup {
    ~Cleanup() { ++cleaned; }
};

extern "C" PROBED int inner(int n) {
    ++inners;
    if (n % 3 == 0) throw std::runtime_error("three " + std::to_string(n));
    if (n % 5 == 0) throw n;
    return n * 2;
}

extern "C" PROBED int middle(int n) {
    ++middles;
    Cleanup cleanup;
    try {
        return inner(n) + 1;
    } catch (const std::logic_error &) {
        return -1;
    } catch (int) {
        if (n % 2 == 0) throw;
        return inner(n + 2) + 3;
    }
}

extern "C" PROBED long outer(int n) {
    ++outers;
    Cleanup cleanup;
    return middle(n) + 7L;
}

int main() {
    ready();
    long sum = 0, caught = 0, length = 0;
    for (int n = 0; n < 3000; ++n) {
        try {
            sum += outer(n);
        } catch (const std::exception &error) {
            ++caught;
            length += std::string(error.what()).size();
        } catch (...) {
            ++caught;
        }
    }
    printf("sum %ld caught %ld length %ld cleaned %ld\n", sum, caught, length, cleaned);
    calls("inner", inners);
    calls("middle", middles);
    calls("outer", outers);
}
