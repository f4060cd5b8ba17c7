/* A library for away.py: a wait call whose caller has memory that cannot be read until a thread on another processor brings it back. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

static void *memory;
static size_t length;
static long away_ns, back_ns;
static atomic_int is_ready, is_away, has_waited;

static long clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* The memory is away for `away_ns` from here on; for less than 0 until the wait call is through. */
static void *bring_back(void *unused)
{
    is_ready = 1;
    while (!is_away)
        ;
    long start_ns = clock_ns();
    while (away_ns < 0 ? !has_waited : clock_ns() - start_ns < away_ns)
        ;
    mprotect(memory, length, PROT_READ | PROT_WRITE);
    back_ns = clock_ns();
    return unused;
}

static int start_elsewhere(pthread_t *thread)
{
    cpu_set_t here, others;
    pthread_attr_t attributes;
    int own = sched_getcpu();
    CPU_ZERO(&here);
    CPU_SET(own, &here);
    if (sched_getaffinity(0, sizeof others, &others) || sched_setaffinity(0, sizeof here, &here))
        return -1;
    CPU_CLR(own, &others);
    pthread_attr_init(&attributes);
    pthread_attr_setaffinity_np(&attributes, sizeof others, &others); /* on one they would take turns: the memory is away for long */
    return pthread_create(thread, &attributes, bring_back, NULL);
}

/* Reap a zombie. Returns for how many ns the memory was away, -1: that failed. */
long reap_without(void *start, size_t size, long ns, pid_t pid)
{
    cpu_set_t before;
    pthread_t thread;
    memory = start;
    length = size;
    away_ns = ns;
    is_ready = is_away = has_waited = 0;
    if (sched_getaffinity(0, sizeof before, &before) || start_elsewhere(&thread))
        return -1;
    while (!is_ready)
        sched_yield();
    long start_ns = clock_ns();
    int failed = mprotect(memory, length, PROT_NONE);
    is_away = 1;
    failed |= waitpid(pid, NULL, 0) != pid;
    has_waited = 1;
    failed |= pthread_join(thread, NULL) | sched_setaffinity(0, sizeof before, &before);
    return failed ? -1 : back_ns - start_ns;
}
