// One function that is called as fast as can be: `hot COUNT`, or `hot until` a second line comes.
#include <poll.h>
#include <string.h>

#include "scene.h"

static inline unsigned long next(unsigned long n) { return n * 6364136223846793005u + 1442695040888963407u; }

PROBED unsigned long hot(unsigned long n) { return next(n); }

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "1000000";
    setvbuf(stdin, 0, _IONBF, 0);
    ready();
    unsigned long state = 1, expected = 1;
    if (!strcmp(how, "until")) {
        struct pollfd more = {0, POLLIN, 0};
        int right = 1;
        do {
            for (int n = 0; n < 1000; ++n) state = hot(state), expected = next(expected);
            right &= state == expected;
        } while (!poll(&more, 1, 0));
        printf("%s\n", right ? "right" : "wrong");
        return !right;
    }
    long count = atol(how);
    for (long n = 0; n < count; ++n) state = hot(state);
    printf("%lx\n", state);
    calls("hot", count);
}
