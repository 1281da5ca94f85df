/* A program of 32 bits, without a C library: says that it runs, makes a socket, connects it, and sends. */
struct address {
    unsigned short family, port;
    unsigned char ip[4], zero[8];
};

static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

void _start(void)
{
    static const struct address evil = {2, 0xbb01, {198, 51, 100, 66}, {0}};
    long fd;

    call(4, 1, (long)"it runs\n", 8);
    /* Not waiting. */
    fd = call(359, 2, 1 | 04000, 0);
    call(362, fd, (long)&evil, sizeof evil);
    call(1, 0, 0, 0);
}
