/* The process that keeps a pod's namespaces open: waits for a signal to end, reaps orphans, does nothing else. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void) {
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    sigaddset(&wanted, SIGINT);
    sigaddset(&wanted, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &wanted, NULL) != 0) return 1;
    for (;;) {
        int got = sigwaitinfo(&wanted, NULL);
        if (got == SIGINT || got == SIGTERM) return 0;
        if (got < 0 && errno != EINTR) return 1;
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
}
