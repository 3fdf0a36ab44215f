// What the programs of this folder share: they wait for a line before they begin, so that probes can
// be attached to a process that runs, and they tell how often they have called what is probed.
//
// Whatever is printed is the same with and without probes, but for lines that begin `calls~`, whose
// numbers depend on timing.
#pragma once
#include <stdio.h>
#include <stdlib.h>

// A function that stays as it is written: neither inlined nor cloned nor seen through.
#define PROBED __attribute__((noipa, used))

static inline void ready(void) {
    printf("ready\n");
    fflush(stdout);
    int c;
    while ((c = getchar()) != EOF && c != '\n') {
    }
}

static inline void calls(const char *name, long count) {
    printf("calls %s %ld\n", name, count);
    fflush(stdout);
}
