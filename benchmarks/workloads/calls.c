/* calls getppid COUNT: that many system calls that no probe is for.
 * calls pingpong COUNT: that many round trips of a byte between two processes over two pipes, both on the lowest permitted CPU,
 * so that system calls and switches are all there is to it. Prints the seconds that it took. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int stay_on_one_cpu(void)
{
    cpu_set_t allowed, one;
    int cpu = 0;
    if (sched_getaffinity(0, sizeof(allowed), &allowed))
        return -1;
    while (!CPU_ISSET(cpu, &allowed))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    return sched_setaffinity(0, sizeof(one), &one);
}

static void echo(int from, int to)
{
    char byte;
    while (read(from, &byte, 1) == 1)
        if (write(to, &byte, 1) != 1)
            break;
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc != 3 || stay_on_one_cpu())
        return 2;
    int count = atoi(argv[2]), there[2], back[2];
    char byte = 0;
    long long begin;
    if (!strcmp(argv[1], "getppid")) {
        begin = now_ns();
        for (int i = 0; i < count; i++)
            syscall(SYS_getppid);
    } else {
        if (pipe(there) || pipe(back))
            return 1;
        if (fork() == 0) {
            close(there[1]);
            echo(there[0], back[1]);
        }
        begin = now_ns();
        for (int i = 0; i < count; i++)
            if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
                return 1;
    }
    printf("%.9f\n", (now_ns() - begin) / 1e9);
    return 0;
}
