// More exceptions than anybody wants to read.
#include <stdexcept>

#include "../hazards/scene.h"

extern "C" PROBED void work(int n) {
    if (n % 2 == 0) throw std::runtime_error("again");
    throw n;
}

int main() {
    ready();
    long sum = 0;
    for (int n = 0; n < 50000; ++n) try {
            work(n);
        } catch (int number) {
            sum += number;
        } catch (const std::exception &) {
            ++sum;
        }
    printf("sum %ld\n", sum);
    return 7;
}
