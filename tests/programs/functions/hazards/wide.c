// Calls every STRIDEth of many functions, over and over: ROUNDS STRIDE.
#include <stdio.h>
#include <stdlib.h>

extern long (*const functions[])(long);

int main(int argc, char **argv) {
    long rounds = argc > 1 ? atol(argv[1]) : 1, stride = argc > 2 ? atol(argv[2]) : 1;
    long count = 0, calls = 0, sum = 0;
    while (functions[count]) count++;
    for (long round = 0; round < rounds; round++)
        for (long at = 0; at < count; at += stride, calls++) sum += functions[at](round);
    printf("calls %ld sum %ld\n", calls, sum);
    return 0;
}
