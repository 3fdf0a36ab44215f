// Functions that end with a jump by a table of functions, beside one that jumps within itself by a table
// that looks the same.
#include "scene.h"

static long evens, odds, steps;

PROBED long even(long n) {
    ++evens;
    return n * 2;
}

PROBED long odd(long n) {
    ++odds;
    return n * 3 + 1;
}

struct kind {
    const char *name;
    long (*first)(long);
    long (*second)(long);
};

// Of constants, of structures, and one that changes.
static long (*const constant[])(long) = {even, odd};
static const struct kind kinds[] = {{"even", even, odd}, {"odd", odd, even}};
static long (*changing[])(long) = {even, odd};

PROBED long by_constant(long n) { return constant[n & 1](n); }
PROBED long by_structure(long n) { return kinds[n & 1].second(n); }
PROBED long by_changing(long n) { return changing[n & 1](n); }

struct object {
    long at;
    long (*function)(long);
};

// At a place that the object says.
PROBED long by_object(long n, struct object *object) {
    long (*function)(long);
    __builtin_memcpy(&function, (char *)object + object->at, sizeof function);
    return function(n);
}

// No call of another function, no frame: it goes on within itself.
PROBED long within(const unsigned char *program, long n) {
    static const void *const places[] = {&&add, &&twice, &&end};
    goto *places[*program++];
add:
    ++steps;
    n += 5;
    goto *places[*program++];
twice:
    ++steps;
    n *= 2;
    goto *places[*program++];
end:
    return n;
}

int main(void) {
    ready();
    long sum = 0;
    for (long n = 0; n < 400; ++n) {
        sum += by_constant(n) + by_structure(n) + by_changing(n);
        long (*kept)(long) = changing[0];
        changing[0] = changing[1];
        changing[1] = kept;
        struct object object = {8, n % 3 ? even : odd};
        sum += by_object(n, &object);
        sum += within((const unsigned char[]){0, 1, 1, 0, 2}, n);
    }
    printf("%ld %ld\n", sum, steps);
    const char *all[] = {"by_constant", "by_structure", "by_changing", "by_object", "within"};
    for (int n = 0; n < 5; ++n) calls(all[n], 400);
    calls("even", evens);
    calls("odd", odds);
}
