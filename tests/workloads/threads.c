/* Threads that fork (3 of them), that wait (5 children), a leader that dies first (2 ways), an exec from a thread that is
 * not the leader, and an exit_group with 31 threads. */
#include "witness.h"

static pid_t forked, forker_tid, waited, waiter_tid;
static int wait_status;
static long long last_ns;

static void *fork_one(void *code)
{
    forker_tid = thread_number();
    forked = plain_fork();
    if (!forked)
        _exit((int)(intptr_t)code);
    return NULL;
}

static void *wait_one(void *pid)
{
    waiter_tid = thread_number();
    waited = wait4((pid_t)(intptr_t)pid, &wait_status, 0, NULL);
    return NULL;
}

static void in_thread(void *(*run)(void *), intptr_t value)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, (void *)value) || pthread_join(thread, NULL))
        die("thread");
}

static void report(const char *name, unsigned long long start)
{
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'forker_pid': %d, 'forker_tid': %d, 'fork_call': '" FORK_CALL "', 'starttime': %llu, "
        "'reaper_pid': %d, 'reaper_tid': %d, 'reap_call': 'wait4', 'reap_target': 'pid', %s",
        name, forked, getpid(), getpid(), forker_tid, start, getpid(), waiter_tid, ending(wait_status));
}

static void threads_fork(const char *name)
{
    for (int i = 0; i < 3; i++) {
        in_thread(fork_one, 10 + i);
        unsigned long long start = starttime(forked);
        wait_one((void *)(intptr_t)forked);
        report(name, start);
    }
}

static void threads_wait(const char *name)
{
    for (int i = 0; i < 5; i++) {
        fork_one((void *)(intptr_t)(20 + i));
        unsigned long long start = starttime(forked);
        in_thread(wait_one, forked);
        report(name, start);
    }
}

static void one_forks_another_waits(const char *name)
{
    for (int i = 0; i < 2; i++) {
        in_thread(fork_one, 30 + i);
        unsigned long long start = starttime(forked);
        in_thread(wait_one, forked);
        report(name, start);
    }
}

static int report_pipe[2], gate[2];

/* Lives until the parent has looked at the process without its leader. */
static void *outlive_the_leader(void *code)
{
    char byte;
    until_state(getpid(), 'Z');
    sleep_ms(50);
    if (read(gate[0], &byte, 1) != 1)
        die("gate");
    last_ns = now_ns();
    if (write(report_pipe[1], &last_ns, sizeof last_ns) != sizeof last_ns)
        die("write");
    if (code)
        syscall(SYS_exit_group, (int)(intptr_t)code);
    syscall(SYS_exit, 0);
    return NULL;
}

/* Its leader is gone and looks like Z in /proc, but 3 waits find nothing: the exit is the last thread's. */
static void leader_first(const char *name, int code)
{
    int status;
    pid_t pid = plain_fork();
    if (!pid) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, outlive_the_leader, (void *)(intptr_t)code))
            die("thread");
        syscall(SYS_exit, 0);
    }
    until_state(pid, 'Z');
    for (int i = 0; i < 3; i++)
        if (wait4(pid, NULL, WNOHANG, NULL) != 0)
            die("a leader was reaped too early");
    unsigned long long start = starttime(pid);
    if (write(gate[1], "", 1) != 1)
        die("gate");
    if (read(report_pipe[0], &last_ns, sizeof last_ns) != sizeof last_ns)
        die("read");
    if (wait4(pid, &status, 0, NULL) != pid)
        die("wait4");
    say("'case': '%s', 'pid': %d, 'starttime': %llu, 'before_exit_ns': %lld, 'after_reap_ns': %lld, 'empty_waits': 3, "
        "'reaper_pid': %d, 'reap_call': 'wait4', %s",
        name, pid, start, last_ns, now_ns(), getpid(), ending(status));
}

static void leader_dies_first(const char *name)
{
    if (pipe(report_pipe) || pipe(gate))
        die("pipe");
    leader_first(name, 0);
    leader_first(name, 13);
}

static void *exec_self(void *unused UNUSED)
{
    char tid[16];
    snprintf(tid, sizeof tid, "%d", thread_number());
    execl("/proc/self/exe", "threads", "after-exec", tid, NULL);
    die("exec");
}

static void exec_in_thread(const char *name)
{
    int status;
    for (int i = 0; i < 3; i++) {
        pid_t pid = plain_fork();
        if (!pid) {
            in_thread(exec_self, 0);
            _exit(1);
        }
        if (wait4(pid, &status, 0, NULL) != pid)
            die("wait4");
        say("'case': '%s', 'what': 'reaped', 'pid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', %s", name, pid, getpid(), ending(status));
    }
}

/* What runs after the exec: the same process, with the number of the leader. */
static int after_exec(const char *old_tid)
{
    say("'case': 'exec-thread', 'what': 'exec', 'pid': %d, 'old_tid': %s, 'argv': 'threads after-exec %s'", getpid(), old_tid, old_tid);
    return getpid() == thread_number() && getpid() != atoi(old_tid) ? 11 : 1;
}

__attribute__((noreturn)) static void *sleep_forever(void *unused UNUSED)
{
    for (;;)
        pause();
}

static void *leave_all(void *unused UNUSED)
{
    sleep_ms(20);
    syscall(SYS_exit_group, 17);
    return NULL;
}

static void exit_group_with_threads(const char *name)
{
    int status;
    pid_t pid = plain_fork();
    if (!pid) {
        pthread_t thread;
        for (int i = 0; i < 30; i++)
            if (pthread_create(&thread, NULL, sleep_forever, NULL))
                die("thread");
        if (pthread_create(&thread, NULL, leave_all, NULL))
            die("thread");
        sleep_forever(NULL);
    }
    if (wait4(pid, &status, 0, NULL) != pid)
        die("wait4");
    say("'case': '%s', 'pid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', 'threads': 31, %s", name, pid, getpid(), ending(status));
}

int main(int count, char **arguments)
{
    if (count == 3)
        return after_exec(arguments[2]);
    in_process("thread-fork", threads_fork);
    in_process("thread-wait", threads_wait);
    in_process("thread-fork-thread-wait", one_forks_another_waits);
    in_process("leader-first", leader_dies_first);
    in_process("exec-thread", exec_in_thread);
    in_process("exit-group", exit_group_with_threads);
    return 0;
}
