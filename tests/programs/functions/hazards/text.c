// A program that reads its own machine code: `text file` from its file, `text memory` where it runs.
// The second sees the breakpoints that probes are.
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"

extern const char __ehdr_start[];
static long works;

PROBED long work(long n) {
    ++works;
    return n % 5 ? n * 7 : n - 7;
}

// How many bytes of the executable segments differ from the file; `digest` becomes that of the file.
static long differing(unsigned long *digest) {
    int fd = open("/proc/self/exe", O_RDONLY);
    struct stat file;
    if (fd < 0 || fstat(fd, &file)) exit(1);
    const unsigned char *bytes = mmap(0, (size_t)file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) exit(1);
    long count = 0;
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)bytes;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(bytes + head->e_phoff);
    for (int n = 0; n < head->e_phnum; ++n) {
        if (segments[n].p_type != PT_LOAD || !(segments[n].p_flags & PF_X)) continue;
        const char *base = head->e_type == ET_DYN ? __ehdr_start : 0;
        const unsigned char *there = (const unsigned char *)base + segments[n].p_vaddr;
        const unsigned char *here = bytes + segments[n].p_offset;
        for (unsigned long at = 0; at < segments[n].p_filesz; ++at) {
            *digest = *digest * 31 + here[at];
            count += here[at] != there[at];
            if (here[at] != there[at] && there[at] != 0xcc) exit(2);
        }
    }
    munmap((void *)bytes, (size_t)file.st_size);
    close(fd);
    return count;
}

int main(int argc, char **argv) {
    ready();
    long sum = 0;
    for (long n = 0; n < 1000; ++n) sum += work(n);
    unsigned long digest = 0;
    long different = differing(&digest);
    printf("sum %ld digest %lx\n", sum, digest);
    if (argc > 1 && !strcmp(argv[1], "memory")) {
        printf("differ %ld\n", different);
        fflush(stdout);
        // And once the probes are gone.
        getchar();
        printf("differ %ld\n", differing(&digest));
    }
    calls("work", works);
}
