/* Processes whose threads all end at the same moment: which of them is the last, is a race. leaving ROUNDS THREADS */
#define _GNU_SOURCE
#include "witness.h"

#include <pthread.h>

static pthread_barrier_t together;

static void *leave(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&together);
    syscall(SYS_exit, 0);
    return 0;
}

int main(int count, char **words)
{
    int rounds = count > 1 ? atoi(words[1]) : 1, threads = count > 2 ? atoi(words[2]) : 64;
    for (int round = 0; round < rounds; round++) {
        pid_t pid = plain_fork();
        if (!pid) {
            pthread_t thread;
            pthread_attr_t small;
            pthread_attr_init(&small);
            pthread_attr_setstacksize(&small, 64 << 10);
            pthread_barrier_init(&together, 0, threads + 1);
            for (int i = 0; i < threads; i++)
                if (pthread_create(&thread, &small, leave, 0))
                    die("pthread_create");
            leave(0);
        }
        if (waitpid(pid, 0, 0) != pid)
            die("waitpid");
        printf("{\"case\": \"leaving\", \"pid\": %d}\n", pid);
    }
    return 0;
}
