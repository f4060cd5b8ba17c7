/* What every C workload shares: say() prints one JSON line, and a case runs in a process of its own.
 *
 * A line is a partial row of the lifecycle table: a key that is a column there must hold the same value in the trace.
 * Keys that are no column are times and counts that a test knows by name: `starttime` (field 22 of /proc/PID/stat),
 * `before_fork_ns`, `after_fork_ns`, `before_exit_ns`, `after_reap_ns` (CLOCK_BOOTTIME).
 */
#ifndef WITNESS_H
#define WITNESS_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

/* Single quotes become double ones; one write, so that lines of several processes never mix. */
UNUSED __attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[2048] = "{";
    va_list values;
    va_start(values, format);
    int length = 1 + vsnprintf(line + 1, sizeof line - 3, format, values);
    va_end(values);
    for (int i = 0; i < length; i++)
        if (line[i] == '\'')
            line[i] = '"';
    line[length] = '}';
    line[length + 1] = '\n';
    if (write(1, line, length + 2) < 0)
        _exit(99);
}

UNUSED __attribute__((noreturn)) static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    _exit(98);
}

UNUSED static long long now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

UNUSED static void sleep_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&time, &time) && errno == EINTR)
        ;
}

UNUSED static pid_t thread_number(void)
{
    return syscall(SYS_gettid);
}

#define STAT_BYTES 1024

/* The fields of /proc/PID/stat from the state on, in `text`; NULL: it is gone. */
UNUSED static const char *stat_fields(pid_t pid, char text[STAT_BYTES])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return NULL;
    ssize_t length = read(file, text, STAT_BYTES - 1);
    close(file);
    if (length <= 0)
        return NULL;
    text[length] = 0;
    return strrchr(text, ')') + 2;
}

/* The state letter and field 22 of /proc/PID/stat; state 0 when there is no such process. */
UNUSED static char stat_of(pid_t pid, unsigned long long *start)
{
    char text[STAT_BYTES], state = 0;
    const char *fields = stat_fields(pid, text);
    if (!fields)
        return 0;
    unsigned long long value = 0;
    sscanf(fields, "%c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state, &value);
    if (start)
        *start = value;
    return state;
}

UNUSED static unsigned long long starttime(pid_t pid)
{
    unsigned long long start = 0;
    stat_of(pid, &start);
    return start;
}

UNUSED static void until_state(pid_t pid, char state)
{
    while (stat_of(pid, NULL) != state)
        sleep_ms(1);
}

/* The child is a zombie (waitid peeks would be wait calls of their own). */
UNUSED static void until_zombie(pid_t pid)
{
    until_state(pid, 'Z');
}

/* Whether its last thread has left (PF_EXITING among the flags of /proc/PID/stat); -1: it is gone altogether. */
UNUSED static int is_exiting(pid_t pid)
{
    char text[STAT_BYTES];
    unsigned flags = 0;
    const char *fields = stat_fields(pid, text);
    if (!fields)
        return -1;
    sscanf(fields, "%*c %*d %*d %*d %*d %*d %u", &flags);
    return (flags & 4) != 0;
}

/* The number of this process in the PID namespace that /proc was mounted in: the recorder's. */
UNUSED static pid_t outer_pid(void)
{
    char text[32] = "";
    if (readlink("/proc/self", text, sizeof text - 1) < 0)
        die("/proc/self");
    return atoi(text);
}

#ifdef SYS_fork
#define FORK_CALL "fork"
#define VFORK_CALL "vfork"
#else
#define FORK_CALL "clone"
#define VFORK_CALL "clone"
#endif

/* The plain system call, as glibc's fork() is a clone; where there is none (arm64), the plainest clone. */
UNUSED static pid_t try_plain_fork(void)
{
#ifdef SYS_fork
    return syscall(SYS_fork);
#else
    return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#endif
}

UNUSED static pid_t plain_fork(void)
{
    pid_t pid = try_plain_fork();
    if (pid < 0)
        die("fork");
    return pid;
}

UNUSED static pid_t plain_clone3(uint64_t flags, uint64_t exit_signal)
{
    struct clone_args arguments = {.flags = flags, .exit_signal = exit_signal};
    pid_t pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0)
        die("clone3");
    return pid;
}

/* A child that exits with `code` when the write end of `gate` is closed, at once without a gate. */
UNUSED static pid_t child(int code, const int gate[2])
{
    pid_t pid = plain_fork();
    if (pid)
        return pid;
    char byte;
    if (gate) {
        close(gate[1]);
        if (read(gate[0], &byte, 1) < 0)
            die("gate");
    }
    _exit(code);
}

/* How a status ended, as keys of a line. */
UNUSED static const char *ending(int status)
{
    static __thread char text[96];
    if (WIFEXITED(status))
        snprintf(text, sizeof text, "'exit_code': %d, 'term_signal': null, 'core_dumped': false", WEXITSTATUS(status));
    else
        snprintf(text, sizeof text, "'exit_code': null, 'term_signal': 'SIG%s', 'core_dumped': %s",
                 sigabbrev_np(WTERMSIG(status)), WCOREDUMP(status) ? "true" : "false");
    return text;
}

/* Runs a case in a process of its own, so that its wait calls are counted apart, and waits for it. */
UNUSED static void in_process(const char *name, void (*run)(const char *name))
{
    int status;
    pid_t pid = plain_fork();
    if (!pid) {
        run(name);
        _exit(0);
    }
    if (wait4(pid, &status, 0, NULL) != pid)
        die("wait4");
    say("'case': '%s', 'what': 'case', 'pid': %d, 'ppid': %d, %s", name, pid, getpid(), ending(status));
    if (status) {
        fprintf(stderr, "case %s ended with status %#x\n", name, status);
        _exit(97);
    }
}

#endif
