// Calls a function of a library that it is linked with, and ends.
#include <stdio.h>

long through(long n);

int main(void) {
    through(1);
    printf("calls shared 2\n");
    return 0;
}
