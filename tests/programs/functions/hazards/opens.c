// Opens a library, calls it, closes it and opens it again, elsewhere: `opens PATH`.
#include <dlfcn.h>
#include <sys/mman.h>

#include "scene.h"

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) return 3;
    ready();
    long sum = 0, count = 0;
    for (int round = 0; round < 20; ++round) {
        long (*through)(long) = (long (*)(long))dlsym(library, "through");
        for (long n = 0; n < 50; ++n, count += 2) sum = sum * 3 + through(n);
        dlclose(library);
        // Takes the place that it had.
        mmap(0, 1 << 16, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        library = dlopen(argv[1], RTLD_NOW);
        if (!library) return 3;
    }
    printf("%ld\n", sum);
    calls("shared", count);
}
