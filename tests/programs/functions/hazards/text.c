// A program that reads its own machine code: `text file` from its file, `text memory` where it runs,
// `text mapped` in a mapping of its file, `text library` the C library's in a mapping of that. The kernel puts probes into whatever memory of a process has
// the file's pages and could be executed, so that the last two show the breakpoints.
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

static const char *path = "/proc/self/exe";
static unsigned long size;

// The C library's file.
static const char *library(void) {
    static char line[4096];
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps)) {
        char *name = strchr(line, '/');
        if (!name || !strstr(name, "/libc.so")) continue;
        name[strcspn(name, "\n")] = 0;
        fclose(maps);
        return name;
    }
    exit(1);
}

// The file, as read(2) has it.
static unsigned char *file(void) {
    int fd = open(path, O_RDONLY);
    struct stat about;
    if (fd < 0 || fstat(fd, &about)) exit(1);
    size = (unsigned long)about.st_size;
    unsigned char *bytes = malloc(size);
    unsigned long at = 0;
    for (long got = 1; at < size && got > 0; at += (unsigned long)got) {
        got = read(fd, bytes + at, size - at);
        if (got < 0) exit(1);
    }
    close(fd);
    return bytes;
}

static long differing(const unsigned char *here, const unsigned char *there, unsigned long count) {
    long different = 0;
    for (unsigned long at = 0; at < count; ++at) {
        different += here[at] != there[at];
        // What differs is a breakpoint.
        if (here[at] != there[at] && there[at] != 0xcc) exit(2);
    }
    return different;
}

// How many bytes of what is executed differ from the file.
static long in_memory(const unsigned char *bytes) {
    long count = 0;
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)bytes;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(bytes + head->e_phoff);
    for (int n = 0; n < head->e_phnum; ++n) {
        if (segments[n].p_type != PT_LOAD || !(segments[n].p_flags & PF_X)) continue;
        const char *base = head->e_type == ET_DYN ? __ehdr_start : 0;
        const unsigned char *there = (const unsigned char *)base + segments[n].p_vaddr;
        count += differing(bytes + segments[n].p_offset, there, segments[n].p_filesz);
    }
    return count;
}

// The same for a mapping of the file that is only read.
static long in_mapping(const unsigned char *bytes) {
    int fd = open(path, O_RDONLY);
    unsigned char *mapped = mmap(0, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd < 0 || mapped == MAP_FAILED) exit(1);
    long count = differing(bytes, mapped, size);
    munmap(mapped, size);
    close(fd);
    return count;
}

int main(int argc, char **argv) {
    ready();
    long sum = 0;
    for (long n = 0; n < 1000; ++n) sum += work(n);
    const char *how = argc > 1 ? argv[1] : "file";
    if (!strcmp(how, "library")) path = library();
    unsigned long digest = 0;
    unsigned char *bytes = file();
    for (unsigned long at = 0; at < size; ++at) digest = digest * 31 + bytes[at];
    printf("sum %ld digest %lx\n", sum, digest);
    long (*look)(const unsigned char *) = strcmp(how, "memory") ? in_mapping : in_memory;
    if (strcmp(how, "file")) {
        printf("differ %ld\n", look(bytes));
        fflush(stdout);
        // And once the probes are gone.
        getchar();
        printf("differ %ld\n", look(bytes));
    }
    calls("work", works);
}
