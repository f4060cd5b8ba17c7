/* storm WORKERS COUNT [exec]: each worker forks COUNT children one after the other and waits for each; with `exec` a child
 * executes this program again before it exits. Prints the seconds that all of it took.
 * storm clock: prints CLOCK_MONOTONIC in nanoseconds, for the start-up time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void work(int count, const char *program)
{
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            _exit(1);
        if (pid == 0) {
            if (program)
                execl(program, program, "child", (char *)NULL);
            _exit(program ? 1 : 0);
        }
        int status;
        if (waitpid(pid, &status, 0) != pid || status)
            _exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "child"))
        _exit(0);
    if (argc == 2 && !strcmp(argv[1], "clock")) {
        printf("%lld\n", now_ns());
        return 0;
    }
    if (argc < 3)
        return 2;
    int workers = atoi(argv[1]), failed = 0;
    long long begin = now_ns();
    for (int i = 0; i < workers; i++) {
        pid_t pid = fork();
        if (pid < 0)
            return 1;
        if (pid == 0) {
            work(atoi(argv[2]), argc > 3 ? argv[0] : NULL);
            _exit(0);
        }
    }
    for (int i = 0; i < workers; i++) {
        int status;
        wait(&status);
        failed |= status;
    }
    printf("%.9f\n", (now_ns() - begin) / 1e9);
    return failed != 0;
}
