/* System calls by the numbers of other architectures: x32 by its bit, i386 by its own gate. */
#include <stdio.h>
#include <string.h>

static long x32(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number | 0x40000000), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static long i386(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "x32"))
        printf("x32 socket %ld\n", x32(41, 2, 1, 0));
    else
        printf("i386 socket %ld\n", i386(359, 2, 1, 0));
    return 0;
}
