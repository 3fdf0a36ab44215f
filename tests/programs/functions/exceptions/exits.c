// Answers requests, and ends within one: the path says how.
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../hazards/scene.h"

static const char *const OK = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

PROBED void gone(void) { pthread_exit(NULL); }

PROBED void *other(void *unused) {
    gone();
    return unused;
}

static void thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, other, NULL);
    pthread_join(thread, NULL);
}

static void *last(void *how) {
    // The process's first thread has ended: this one's end is its.
    pthread_join(*(pthread_t *)how, NULL);
    return NULL;
}

PROBED void work(const char *how) {
    if (!strcmp(how, "/exit")) exit(3);
    if (!strcmp(how, "/now")) _exit(4);
    if (!strcmp(how, "/well")) exit(0);
    if (!strcmp(how, "/abort")) abort();
    if (!strcmp(how, "/segv")) *(volatile int *)8 = 1;
    if (!strcmp(how, "/thread")) thread();
    if (!strcmp(how, "/waits")) pause();
    if (!strcmp(how, "/exec")) execl("/bin/false", "false", (char *)NULL);
    if (!strcmp(how, "/first")) {
        static pthread_t first;
        pthread_t other;
        first = pthread_self();
        pthread_create(&other, NULL, last, &first);
        pthread_exit(NULL);
    }
}

int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&at, size) || listen(listener, 8)) return 1;
    getsockname(listener, (struct sockaddr *)&at, &size);
    printf("ready\n%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        char request[4096] = "";
        if (read(connection, request, sizeof(request) - 1) <= 0) return 2;
        char *path = strchr(request, ' ') + 1;
        *strchr(path, ' ') = 0;
        work(path);
        if (write(connection, OK, strlen(OK)) < 0) return 3;
        close(connection);
    }
}
