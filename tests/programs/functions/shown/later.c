// Opens a library and calls it, each when it is told to by a line: `later PATH`.
#include <dlfcn.h>
#include <stdio.h>

static void say(const char *text) {
    puts(text);
    fflush(stdout);
}

int main(int argc, char **argv) {
    char line[16];
    say("up");
    if (argc < 2 || !fgets(line, sizeof line, stdin)) return 2;
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) return 3;
    say("opened");
    if (!fgets(line, sizeof line, stdin)) return 2;
    long (*through)(long) = (long (*)(long))dlsym(library, "through");
    for (long n = 0; n < 5; ++n) through(n);
    say("done");
    fgets(line, sizeof line, stdin);
    return 0;
}
