// What `opens.c` opens.
__attribute__((noipa)) long shared(long n) { return n * 5 + 1; }

long through(long n) { return shared(n) - shared(n + 1); }
