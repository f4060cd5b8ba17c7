/* Makes processes by every call there is: 3 by fork, 5 by vfork, 2 by clone, 7 by clone3, 5 by posix_spawn, and 3 by a
 * clone with CLONE_PARENT, whose real parent is not the forker. */
#include "witness.h"
#include <spawn.h>

static long long before_ns;

static void reap(const char *name, const char *call, pid_t pid, pid_t forker)
{
    long long after_ns = now_ns();
    unsigned long long start = starttime(pid);
    int status;
    if (wait4(pid, &status, 0, NULL) != pid)
        die("wait4");
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'forker_pid': %d, 'forker_tid': %d, 'fork_call': '%s', 'starttime': %llu, %s, "
        "'reaper_pid': %d, 'reaper_tid': %d, 'reap_call': 'wait4', 'reap_target': 'pid', 'reap_options': '', "
        "'before_fork_ns': %lld, 'after_fork_ns': %lld, 'after_reap_ns': %lld",
        name, pid, getpid(), forker, forker, call, start, ending(status), getpid(), thread_number(), before_ns, after_ns, now_ns());
}

static void by_fork(const char *name)
{
    for (int i = 0; i < 3; i++) {
        before_ns = now_ns();
        pid_t pid = plain_fork();
        if (!pid)
            _exit(10 + i);
        reap(name, FORK_CALL, pid, getpid());
    }
}

static void by_vfork(const char *name)
{
    for (int i = 0; i < 5; i++) {
        before_ns = now_ns();
        pid_t pid = vfork();
        if (!pid)
            _exit(20 + i);
        reap(name, VFORK_CALL, pid, getpid());
    }
}

static void by_clone(const char *name)
{
    for (int i = 0; i < 2; i++) {
        before_ns = now_ns();
        pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (!pid)
            _exit(30 + i);
        reap(name, "clone", pid, getpid());
    }
}

static void by_clone3(const char *name)
{
    for (int i = 0; i < 7; i++) {
        before_ns = now_ns();
        pid_t pid = plain_clone3(0, SIGCHLD);
        if (!pid)
            _exit(40 + i);
        reap(name, "clone3", pid, getpid());
    }
}

/* glibc's posix_spawn is a clone3 (2.34 and later) or a clone, with CLONE_VM and CLONE_VFORK. */
static void by_posix_spawn(const char *name)
{
    char *program[] = {"/bin/true", "spawned", NULL}, *empty[] = {NULL};
    for (int i = 0; i < 5; i++) {
        pid_t pid;
        before_ns = now_ns();
        if (posix_spawn(&pid, program[0], NULL, NULL, program, empty))
            die("posix_spawn");
        int status;
        if (wait4(pid, &status, 0, NULL) != pid)
            die("wait4");
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'forker_pid': %d, 'forker_tid': %d, 'comm': 'true', "
            "'argv': '/bin/true spawned', 'reaper_pid': %d, 'reap_call': 'wait4', %s, 'before_fork_ns': %lld, 'after_reap_ns': %lld",
            name, pid, getpid(), getpid(), getpid(), getpid(), ending(status), before_ns, now_ns());
    }
}

/* The children belong to this process, though its child made them; the child's own wait finds none. */
static void by_clone_parent(const char *name)
{
    int report[2], status;
    pid_t pids[3];
    if (pipe(report))
        die("pipe");
    before_ns = now_ns();
    pid_t forker = plain_fork();
    if (!forker) {
        for (int i = 0; i < 3; i++) {
            pid_t pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
            if (!pid)
                _exit(50 + i);
            if (write(report[1], &pid, sizeof pid) != sizeof pid)
                die("write");
        }
        _exit(wait4(-1, NULL, 0, NULL) == -1 && errno == ECHILD ? 53 : 1);
    }
    for (int i = 0; i < 3; i++)
        if (read(report[0], &pids[i], sizeof pids[i]) != sizeof pids[i])
            die("read");
    for (int i = 0; i < 3; i++)
        reap(name, "clone", pids[i], forker);
    if (wait4(forker, &status, 0, NULL) != forker || WEXITSTATUS(status) != 53)
        die("forker");
}

int main(void)
{
    in_process("fork", by_fork);
    in_process("vfork", by_vfork);
    in_process("clone", by_clone);
    in_process("clone3", by_clone3);
    in_process("posix_spawn", by_posix_spawn);
    in_process("clone-parent", by_clone_parent);
    return 0;
}
