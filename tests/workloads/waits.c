/* Waits in every way: wait4 for a pid, any child, a group; waitid for each id type, also without a siginfo; bad pointers;
 * stops, continues and peeks that are not reaps; calls that find nothing; a child that its parent traces. */
#include "witness.h"
#include <sys/ptrace.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static void reaped(const char *name, pid_t pid, const char *call, const char *target, const char *options, int code)
{
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'exit_code': %d, 'reaper_pid': %d, 'reaper_tid': %d, 'reap_call': '%s', "
        "'reap_target': '%s', 'reap_options': '%s', 'after_reap_ns': %lld",
        name, pid, getpid(), code, getpid(), thread_number(), call, target, options, now_ns());
}

/* The kernel tells nobody which child the call took: that may be found out, and then the row says so. */
static void reaped_untold(const char *name, pid_t pid, const char *call, const char *options, int code)
{
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'exit_code': %d, 'reaper_pid': %d, 'reaper_tid': %d, 'reap_call': '%s', "
        "'reap_target': 'any', 'reap_options': '%s', 'after_reap_ns': %lld, 'complete': null",
        name, pid, getpid(), code, getpid(), thread_number(), call, options, now_ns());
}

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

static pid_t in_own_group(int code)
{
    int gate[2];
    must(pipe(gate) == 0, "pipe");
    pid_t pid = child(code, gate);
    must(setpgid(pid, pid) == 0, "setpgid");
    close(gate[0]);
    close(gate[1]);
    return pid;
}

static void wait4_targets(const char *name)
{
    int status;
    for (int i = 0; i < 2; i++) {
        pid_t pid = child(10 + i, NULL);
        must(wait4(pid, &status, 0, NULL) == pid, "wait4 pid");
        reaped(name, pid, "wait4", "pid", "", WEXITSTATUS(status));
        pid = child(20 + i, NULL);
        must(wait4(-1, &status, 0, NULL) == pid, "wait4 any");
        reaped(name, pid, "wait4", "any", "", WEXITSTATUS(status));
        pid = in_own_group(30 + i);
        must(wait4(-pid, &status, 0, NULL) == pid, "wait4 pgid");
        reaped(name, pid, "wait4", "pgid", "", WEXITSTATUS(status));
    }
    pid_t pid = child(40, NULL);
    until_zombie(pid);
    must(wait4(0, &status, WNOHANG, NULL) == pid, "wait4 own group");
    reaped(name, pid, "wait4", "pgid", "WNOHANG", WEXITSTATUS(status));
}

static void waitid_targets(const char *name)
{
    siginfo_t info;
    for (int i = 0; i < 2; i++) {
        pid_t pid = child(10 + i, NULL);
        must(waitid(P_PID, pid, &info, WEXITED) == 0, "P_PID");
        reaped(name, pid, "waitid", "pid", "WEXITED", info.si_status);
        pid = child(20 + i, NULL);
        must(waitid(P_ALL, 0, &info, WEXITED) == 0, "P_ALL");
        reaped(name, pid, "waitid", "any", "WEXITED", info.si_status);
        pid = in_own_group(30 + i);
        must(waitid(P_PGID, pid, &info, WEXITED) == 0, "P_PGID");
        reaped(name, pid, "waitid", "pgid", "WEXITED", info.si_status);
        pid = child(40 + i, NULL);
        int pidfd = syscall(SYS_pidfd_open, pid, 0);
        must(pidfd >= 0, "pidfd_open");
        must(waitid(P_PIDFD, pidfd, &info, WEXITED) == 0, "P_PIDFD");
        close(pidfd);
        reaped(name, pid, "waitid", "pidfd", "WEXITED", info.si_status);
    }
    pid_t pid = child(50, NULL);
    until_zombie(pid);
    must(waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG) == 0, "all options");
    reaped(name, pid, "waitid", "any", "WNOHANG|WSTOPPED|WEXITED|WCONTINUED", info.si_status);
}

/* The kernel does not tell who was reaped: it has to be found out. */
static void without_a_result(const char *name)
{
    for (int i = 0; i < 3; i++) {
        pid_t pid = child(10 + i, NULL);
        must(waitid(P_PID, pid, NULL, WEXITED) == 0, "P_PID without infop");
        reaped(name, pid, "waitid", "pid", "WEXITED", 10 + i);
        pid = child(20 + i, NULL);
        must(waitid(P_ALL, 0, NULL, WEXITED) == 0, "P_ALL without infop");
        reaped_untold(name, pid, "waitid", "WEXITED", 20 + i);
        pid = child(30 + i, NULL);
        must(wait4(pid, NULL, 0, NULL) == pid, "wait4 without status");
        reaped(name, pid, "wait4", "pid", "", 30 + i);
    }
}

/* EFAULT, and yet the child is gone. */
static void bad_pointers(const char *name)
{
    void *bad = (void *)8;
    for (int i = 0; i < 2; i++) {
        pid_t pid = child(10 + i, NULL);
        must(syscall(SYS_wait4, pid, bad, 0, NULL) == -1 && errno == EFAULT, "wait4 bad status");
        must(wait4(pid, NULL, 0, NULL) == -1 && errno == ECHILD, "reaped by EFAULT");
        reaped(name, pid, "wait4", "pid", "", 10 + i);
        pid = child(20 + i, NULL);
        must(syscall(SYS_wait4, -1, NULL, 0, bad) == -1 && errno == EFAULT, "wait4 bad rusage");
        must(wait4(pid, NULL, 0, NULL) == -1 && errno == ECHILD, "reaped by EFAULT");
        reaped_untold(name, pid, "wait4", "", 20 + i);
        pid = child(30 + i, NULL);
        must(syscall(SYS_waitid, P_PID, pid, bad, WEXITED, NULL) == -1 && errno == EFAULT, "waitid bad infop");
        must(wait4(pid, NULL, 0, NULL) == -1 && errno == ECHILD, "reaped by EFAULT");
        reaped(name, pid, "waitid", "pid", "WEXITED", 30 + i);
    }
}

/* 3 stops and 3 continues are seen, with a status pointer or without, then one reap. */
static void stops(const char *name, int with_status)
{
    int status, *pointer = with_status ? &status : NULL;
    int gate[2];
    must(pipe(gate) == 0, "pipe");
    pid_t pid = child(with_status ? 60 : 61, gate);
    for (int i = 0; i < 3; i++) {
        kill(pid, SIGSTOP);
        must(wait4(pid, pointer, WUNTRACED, NULL) == pid, "stop");
        must(!with_status || WIFSTOPPED(status), "stopped");
        kill(pid, SIGCONT);
        must(wait4(pid, pointer, WUNTRACED | WCONTINUED, NULL) == pid, "continue");
        must(!with_status || WIFCONTINUED(status), "continued");
    }
    long long before_ns = now_ns();
    close(gate[0]);
    close(gate[1]);
    must(wait4(pid, pointer, WUNTRACED | WCONTINUED, NULL) == pid, "exit");
    say("'case': '%s', 'pid': %d, 'stops': 3, 'continues': 3, 'reaper_pid': %d, 'reap_call': 'wait4', 'reap_target': 'pid', "
        "'reap_options': 'WUNTRACED|WCONTINUED', 'exit_code': %d, 'before_exit_ns': %lld",
        name, pid, getpid(), with_status ? 60 : 61, before_ns);
}

static void stops_and_continues(const char *name)
{
    stops(name, 1);
    stops(name, 0);
    siginfo_t info;
    int gate[2];
    must(pipe(gate) == 0, "pipe");
    pid_t pid = child(62, gate);
    for (int i = 0; i < 3; i++) {
        kill(pid, SIGSTOP);
        must(waitid(P_PID, pid, i ? &info : NULL, WSTOPPED) == 0, "waitid stop");
        kill(pid, SIGCONT);
        must(waitid(P_ALL, 0, i ? &info : NULL, WCONTINUED) == 0, "waitid continue");
    }
    close(gate[0]);
    close(gate[1]);
    must(waitid(P_PID, pid, NULL, WEXITED) == 0, "waitid exit");
    say("'case': '%s', 'pid': %d, 'stops': 3, 'continues': 3, 'reaper_pid': %d, 'reap_call': 'waitid', 'reap_target': 'pid', "
        "'reap_options': 'WEXITED', 'exit_code': 62",
        name, pid, getpid());
}

/* Each child is looked at 3 times before it is reaped. */
static void peeks(const char *name)
{
    siginfo_t info;
    for (int i = 0; i < 2; i++) {
        pid_t pid = child(70 + i, NULL);
        for (int peek = 0; peek < 3; peek++)
            must(waitid(P_PID, pid, peek == 1 ? NULL : &info, WEXITED | WNOWAIT) == 0, "peek");
        sleep_ms(20);
        long long peeked_ns = now_ns();
        must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
        say("'case': '%s', 'pid': %d, 'peeks': 3, 'reaper_pid': %d, 'reap_call': 'wait4', 'exit_code': %d, 'before_reap_ns': %lld, "
            "'after_reap_ns': %lld",
            name, pid, getpid(), 70 + i, peeked_ns, now_ns());
    }
}

/* 5 wait4 and 2 waitid calls for one child find it alive. */
static void empty_for_a_child(const char *name)
{
    int gate[2];
    siginfo_t info;
    must(pipe(gate) == 0, "pipe");
    pid_t pid = child(80, gate);
    for (int i = 0; i < 5; i++)
        must(wait4(pid, NULL, WNOHANG, NULL) == 0, "empty wait4");
    for (int i = 0; i < 2; i++)
        must(waitid(P_PID, pid, &info, WEXITED | WNOHANG) == 0 && info.si_pid == 0, "empty waitid");
    close(gate[0]);
    close(gate[1]);
    must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
    say("'case': '%s', 'pid': %d, 'empty_waits': 7, 'reaper_pid': %d, 'reap_call': 'wait4', 'exit_code': 80", name, pid, getpid());
}

/* 11 calls for any child and 5 for a group find a living child, 13 find no child at all. */
static void empty_for_any(const char *name)
{
    int gate[2];
    must(pipe(gate) == 0, "pipe");
    pid_t pid = child(81, gate);
    for (int i = 0; i < 11; i++)
        must(wait4(-1, NULL, WNOHANG, NULL) == 0, "empty any");
    for (int i = 0; i < 5; i++)
        must(wait4(0, NULL, WNOHANG, NULL) == 0, "empty group");
    close(gate[0]);
    close(gate[1]);
    must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
    for (int i = 0; i < 13; i++)
        must(wait4(-1, NULL, WNOHANG, NULL) == -1 && errno == ECHILD, "ECHILD");
    say("'case': '%s', 'pid': %d, 'empty_waits': 0, 'reaper_pid': %d, 'reap_call': 'wait4', 'exit_code': 81, 'empty_any': 11, "
        "'empty_pgid': 5, 'no_child': 13",
        name, pid, getpid());
}

static void ignore_it(int number UNUSED)
{
}

/* A timer interrupts 3 blocking waits for a child. It goes on ticking, for the first tick may come before the wait. */
static void interrupted(const char *name)
{
    int gate[2];
    must(pipe(gate) == 0, "pipe");
    pid_t pid = child(82, gate);
    struct sigaction action = {.sa_handler = ignore_it};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval ticking = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &ticking, NULL);
    for (int i = 0; i < 3; i++)
        must(wait4(pid, NULL, 0, NULL) == -1 && errno == EINTR, "EINTR");
    setitimer(ITIMER_REAL, &never, NULL);
    close(gate[0]);
    close(gate[1]);
    must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
    say("'case': '%s', 'pid': %d, 'interrupted': 3, 'reaper_pid': %d, 'reap_call': 'wait4', 'exit_code': 82", name, pid, getpid());
}

/* The parent traces its own children: each stops twice, and is reaped once. */
static void traced_by_the_parent(const char *name)
{
    int status;
    for (int i = 0; i < 3; i++) {
        pid_t pid = plain_fork();
        if (!pid) {
            ptrace(PTRACE_TRACEME, 0, 0, 0);
            raise(SIGSTOP);
            raise(SIGUSR1);
            _exit(90 + i);
        }
        for (int stop = 0; stop < 2; stop++) {
            must(wait4(pid, &status, 0, NULL) == pid && WIFSTOPPED(status), "trace stop");
            ptrace(PTRACE_CONT, pid, 0, 0);
        }
        must(wait4(pid, &status, 0, NULL) == pid && WIFEXITED(status), "traced exit");
        say("'case': '%s', 'pid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', 'exit_code': %d", name, pid, getpid(), 90 + i);
    }
}

/* The wait begins long before the child dies. */
static void blocking(const char *name)
{
    for (int i = 0; i < 2; i++) {
        pid_t pid = plain_fork();
        if (!pid) {
            sleep_ms(30);
            _exit(95 + i);
        }
        must(wait4(-1, NULL, __WALL, NULL) == pid, "wait4");
        reaped(name, pid, "wait4", "any", "__WALL", 95 + i);
    }
}

int main(void)
{
    in_process("wait4", wait4_targets);
    in_process("waitid", waitid_targets);
    in_process("no-result", without_a_result);
    in_process("efault", bad_pointers);
    in_process("stops", stops_and_continues);
    in_process("peeks", peeks);
    in_process("empty-child", empty_for_a_child);
    in_process("empty-any", empty_for_any);
    in_process("interrupted", interrupted);
    in_process("traced-by-parent", traced_by_the_parent);
    in_process("blocking", blocking);
    return 0;
}
