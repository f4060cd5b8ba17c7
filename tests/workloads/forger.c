/* Lies about children: notices of deaths that the kernel did not send, and results of wait calls that another thread changes right
 * after the kernel wrote them. What really happened is on each line. */
#include "witness.h"

enum { CHILDREN = 61 };

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

static void tell(const char *name, pid_t pid, int code, long long before_ns, const char *more)
{
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'exit_code': %d, 'reaper_pid': %d, 'before_reap_ns': %lld, 'state': 'gone'%s", name, pid,
        getpid(), code, getpid(), before_ns, more);
}

/* A process may send itself any siginfo: here that `pid`, whoever's child, has ended. */
static void send_notice(pid_t pid)
{
    siginfo_t info = {.si_signo = SIGCHLD, .si_code = CLD_EXITED};
    info.si_pid = pid;
    must(syscall(SYS_rt_sigqueueinfo, getpid(), SIGCHLD, &info) == 0, "rt_sigqueueinfo");
}

/* The zombie is this process's. A process that ignores SIGCHLD says that it was notified of it; so does this one itself. */
static void notices(const char *name)
{
    pid_t zombie = child(31, NULL);
    until_zombie(zombie);
    pid_t forger = plain_fork();
    if (!forger) {
        signal(SIGCHLD, SIG_IGN);
        send_notice(zombie);
        _exit(0);
    }
    must(wait4(forger, NULL, 0, NULL) == forger, "forger");
    send_notice(zombie);
    sleep_ms(20);
    long long before_ns = now_ns();
    must(wait4(zombie, NULL, 0, NULL) == zombie, "wait4");
    tell(name, zombie, 31, before_ns, ", 'reap_call': 'wait4', 'reap_target': 'pid', 'least_zombie_ms': 20");
}

static volatile int *scribbled;
static volatile int lie;

static void *scribble(void *unused)
{
    for (;;)
        if (scribbled)
            *scribbled = lie;
    return unused;
}

static void begin_to_lie(volatile int *where, int what)
{
    pthread_t thread;
    scribbled = where;
    lie = what;
    must(pthread_create(&thread, NULL, scribble, NULL) == 0, "pthread_create");
}

/* Each is reaped, while the status says that it was only stopped. */
static void exits_as_stops(const char *name)
{
    static int status;
    begin_to_lie(&status, 0x137f);
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = child(32, NULL);
        long long before_ns = now_ns();
        must(wait4(pid, &status, 0, NULL) == pid, "wait4");
        tell(name, pid, 32, before_ns, ", 'reap_call': 'wait4'");
    }
}

/* Each is stopped, while the status says that it has exited; and it lives on. */
static void stops_as_exits(const char *name)
{
    static int status;
    begin_to_lie(&status, 0);
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = plain_fork();
        if (!pid) {
            kill(getpid(), SIGSTOP);
            _exit(33);
        }
        must(wait4(pid, &status, WUNTRACED, NULL) == pid, "stop");
        long long before_ns = now_ns();
        kill(pid, SIGCONT);
        must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
        tell(name, pid, 33, before_ns, ", 'reap_call': 'wait4'");
    }
}

/* Each is reaped, while the siginfo names another zombie, which stays. */
static void others(const char *name)
{
    static siginfo_t info;
    pid_t stays = child(34, NULL);
    until_zombie(stays);
    begin_to_lie(&info.si_pid, stays);
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = child(35, NULL);
        long long before_ns = now_ns();
        must(waitid(P_PID, pid, &info, WEXITED) == 0, "waitid");
        tell(name, pid, 35, before_ns, ", 'complete': null");
    }
    long long before_ns = now_ns();
    must(wait4(stays, NULL, 0, NULL) == stays, "wait4");
    tell(name, stays, 34, before_ns, ", 'reap_call': 'wait4'");
}

int main(void)
{
    in_process("notices", notices);
    in_process("exits-as-stops", exits_as_stops);
    in_process("stops-as-exits", stops_as_exits);
    in_process("others", others);
    return 0;
}
