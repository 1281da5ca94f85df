/* A thread that waits for an answer is killed, and its number goes to a process that made no call: does the answer go into that
   process's memory? */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char buffer[600], name[64], stack[65536];
static socklen_t name_length = sizeof name;

static int end(void *nothing) {
    (void)nothing;
    _exit(0);
}

/* Whether the next free number is this one, or soon will be. */
static int is_next(pid_t last, pid_t wanted) {
    if (last >= wanted || wanted - last > 16) return 0;
    for (pid_t between = last + 1; between < wanted; between++) {
        char path[32];
        snprintf(path, sizeof path, "/proc/%d", between);
        if (access(path, F_OK)) return 0;
    }
    return 1;
}

static pid_t use_up_numbers(pid_t wanted) {
    for (int used = 0; used < 200000; used++) {
        pid_t last = clone(end, stack + sizeof stack - 64, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
        waitpid(last, NULL, 0);
        if (is_next(last, wanted)) return last;
    }
    return 0;
}

int main(void) {
    int socket_ = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in nameserver = {.sin_family = AF_INET, .sin_port = htons(53)};
    inet_pton(AF_INET, "192.0.2.53", &nameserver.sin_addr);
    if (connect(socket_, (void *)&nameserver, sizeof nameserver)) return 1;
    volatile char *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    static const char query[] = "AA\1\0\0\1\0\0\0\0\0\0\3www\4good\7example\0\0\1\0\1";
    for (int attempt = 0; attempt < 20; attempt++) {
        pid_t caller = fork();
        if (!caller) {
            recvfrom(socket_, buffer, 512, 0, (void *)name, &name_length);
            _exit(0);
        }
        /* Should it not have called by then, it is no attack, and the next attempt may be. */
        usleep(50000);
        use_up_numbers(caller);
        kill(caller, SIGKILL);
        waitpid(caller, NULL, 0);
        pid_t victim = fork();
        if (!victim) {
            for (int look = 0; look < 10 && !*seen; look++) {
                usleep(50000);
                *seen = memcmp(buffer, "AA", 2) == 0;
            }
            _exit(0);
        }
        send(socket_, query, sizeof query - 1, 0);
        waitpid(victim, NULL, 0);
        if (victim == caller) {
            puts(*seen ? "written" : "untouched");
            return 0;
        }
        while (recv(socket_, buffer, sizeof buffer, MSG_DONTWAIT) > 0) {}
        memset(buffer, 0, sizeof buffer);
    }
    puts("SKIPPED: the number was not given again");
    return 0;
}
