// Raises before main begins and in its first instructions, by a library that is shared, and ends.
#include <cstdio>
#include <stdexcept>

extern "C" __attribute__((noipa, used)) int work(int n) {
    if (n < 2) throw std::runtime_error(n == 0 ? "early" : "late");
    return n;
}

static int tried(int n) {
    try {
        return work(n);
    } catch (const std::exception &) {
        return -1;
    }
}

static int before_main = tried(0);

int main() {
    std::printf("%d\n", before_main + tried(1) + tried(7));
}
