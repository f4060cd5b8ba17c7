/* ends CHILDREN STORM: makes zombies one after the other and takes the clock on both sides of their beginning and their end.
 *
 * A child takes it right before it leaves, its parent when SIGCHLD has come, and before and after its wait call: one JSON line
 * each, CLOCK_BOOTTIME ns. Each tenth has 64 MiB to give back, which takes the kernel a while between the end of its last thread and the
 * notification. Meanwhile STORM processes fork and wait as fast as they can.
 */
#include "witness.h"

#define EACH_BIG 10
#define BIG_BYTES (64 << 20)

static void storm(void)
{
    for (;;) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        if (pid < 0 || waitpid(pid, NULL, 0) != pid)
            die("storm");
    }
}

static void touch(void)
{
    char *memory = mmap(NULL, BIG_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    madvise(memory, BIG_BYTES, MADV_NOHUGEPAGE);
    for (long at = 0; at < BIG_BYTES; at += 4096)
        memory[at] = 1;
}

int main(int argc, char **argv)
{
    int children = argc > 1 ? atoi(argv[1]) : 100, stormy = argc > 2 ? atoi(argv[2]) : 0;
    volatile long long *left_ns = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t storms[16];
    sigset_t chld;
    if (left_ns == MAP_FAILED || stormy > 16)
        die("arguments");
    for (int i = 0; i < stormy; i++)
        if ((storms[i] = plain_fork()) == 0)
            storm();
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &chld, NULL);
    for (int i = 0; i < children; i++) {
        pid_t pid = plain_fork();
        if (pid == 0) {
            if (i % EACH_BIG == 0)
                touch();
            sleep_ms(2); /* so that /proc shows it alive */
            *left_ns = now_ns();
            _exit(0);
        }
        while (sigwaitinfo(&chld, NULL) != SIGCHLD)
            ;
        long long told_ns = now_ns();
        sleep_ms(1 + i % 7 * 5);
        long long before_ns = now_ns();
        if (waitpid(pid, NULL, 0) != pid)
            die("waitpid");
        long long after_ns = now_ns();
        say("'pid': %d, 'big': %s, 'left_ns': %lld, 'told_ns': %lld, 'before_ns': %lld, 'after_ns': %lld", pid,
            i % EACH_BIG ? "false" : "true", *left_ns, told_ns, before_ns, after_ns);
    }
    for (int i = 0; i < stormy; i++) {
        kill(storms[i], SIGKILL);
        waitpid(storms[i], NULL, 0);
    }
    return 0;
}
