/* Ends processes in every way: 5 exit codes; signals of a process, the kernel, a timer, the process itself and the parent's
 * death; exit signals other than SIGCHLD, and none; parents that ignore SIGCHLD or set SA_NOCLDWAIT.
 * argv[1] is a directory for core files. */
#include "witness.h"

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

static void codes(const char *name)
{
    static const int values[5] = {0, 1, 2, 127, 255};
    int status;
    for (int i = 0; i < 5; i++) {
        pid_t pid = child(values[i], NULL);
        must(wait4(pid, &status, 0, NULL) == pid, "wait4");
        say("'case': '%s', 'pid': %d, 'reaper_pid': %d, 'killer_kind': null, 'killer_pid': null, %s", name, pid, getpid(), ending(status));
    }
}

static void wait_for(const char *name, pid_t pid, const char *kind, pid_t killer)
{
    char killed_by[32] = "null";
    int status;
    if (killer)
        snprintf(killed_by, sizeof killed_by, "%d", killer);
    must(wait4(pid, &status, 0, NULL) == pid, "wait4");
    say("'case': '%s', 'pid': %d, 'reaper_pid': %d, 'killer_kind': '%s', 'killer_pid': %s, %s", name, pid, getpid(), kind, killed_by,
        ending(status));
}

static pid_t sleeper(void)
{
    pid_t pid = plain_fork();
    if (!pid)
        for (;;)
            pause();
    return pid;
}

/* By the parent with kill, sigqueue and pidfd_send_signal, by a sibling, by a thread of the parent. */
static void *kill_in_thread(void *pid)
{
    kill((pid_t)(intptr_t)pid, SIGKILL);
    return NULL;
}

static void killed_by_a_process(const char *name)
{
    pid_t pid = sleeper();
    kill(pid, SIGTERM);
    wait_for(name, pid, "process", getpid());

    pid = sleeper();
    sigqueue(pid, SIGUSR2, (union sigval){.sival_int = 5});
    wait_for(name, pid, "process", getpid());

    pid = sleeper();
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    syscall(SYS_pidfd_send_signal, pidfd, SIGHUP, NULL, 0);
    close(pidfd);
    wait_for(name, pid, "process", getpid());

    pid = sleeper();
    pid_t sibling = plain_fork();
    if (!sibling) {
        kill(pid, SIGKILL);
        _exit(0);
    }
    wait_for(name, pid, "process", sibling);
    must(wait4(sibling, NULL, 0, NULL) == sibling, "sibling");

    pid = sleeper();
    pthread_t thread;
    must(pthread_create(&thread, NULL, kill_in_thread, (void *)(intptr_t)pid) == 0, "thread");
    pthread_join(thread, NULL);
    wait_for(name, pid, "process", getpid());
}

static volatile int *nowhere;

/* A bad address, an illegal instruction and a division by zero come from the kernel; abort and raise from the process. */
static void killed_by_itself(const char *name)
{
    for (int i = 0; i < 5; i++) {
        pid_t pid = plain_fork();
        if (!pid) {
            if (i == 0)
                *nowhere = 1;
            if (i == 1)
                __builtin_trap();
            if (i == 2)
                abort();
            if (i == 3)
                raise(SIGTERM);
            syscall(SYS_tgkill, getpid(), thread_number(), SIGKILL);
        }
        wait_for(name, pid, i < 2 ? "kernel" : "process", i < 2 ? 0 : pid);
    }
}

/* `current` is a bystander when a timer fires: nobody is named. */
static void killed_by_a_timer(const char *name)
{
    for (int i = 0; i < 3; i++) {
        pid_t pid = plain_fork();
        if (!pid) {
            struct itimerval soon = {.it_value = {0, 20000}};
            setitimer(i == 1 ? ITIMER_VIRTUAL : ITIMER_REAL, &soon, NULL);
            for (;;)
                if (i != 1) /* virtual time passes only for who runs */
                    pause();
        }
        wait_for(name, pid, "kernel", 0);
    }
}

/* The child wants a signal when its parent dies; this process inherits and reaps both. */
static void killed_by_parent_death(const char *name)
{
    must(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "subreaper");
    for (int i = 0; i < 3; i++) {
        int report[2];
        must(pipe(report) == 0, "pipe");
        pid_t parent = plain_fork();
        if (!parent) {
            int ready[2];
            char byte;
            must(pipe(ready) == 0, "pipe");
            pid_t pid = plain_fork();
            if (!pid) {
                prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
                close(ready[1]);
                close(ready[0]);
                for (;;)
                    pause();
            }
            close(ready[1]);
            must(read(ready[0], &byte, 1) == 0 && write(report[1], &pid, sizeof pid) == sizeof pid, "report");
            _exit(3);
        }
        pid_t pid;
        must(read(report[0], &pid, sizeof pid) == sizeof pid, "read");
        must(wait4(parent, NULL, 0, NULL) == parent, "parent");
        int status;
        must(wait4(pid, &status, 0, NULL) == pid, "orphan");
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'killer_kind': 'pdeathsig', 'killer_pid': %d, 'adopter_pid': %d, 'reaper_pid': %d, %s",
            name, pid, parent, parent, getpid(), getpid(), ending(status));
        close(report[0]);
        close(report[1]);
    }
}

static void leave(int number UNUSED)
{
    _exit(23);
}

/* SIGTERM reaches 3 processes that exit by themselves because of it: nobody killed them. */
static void caught(const char *name)
{
    for (int i = 0; i < 3; i++) {
        int ready[2], status;
        char byte;
        must(pipe(ready) == 0, "pipe");
        pid_t pid = plain_fork();
        if (!pid) {
            signal(SIGTERM, leave);
            close(ready[1]);
            close(ready[0]);
            for (;;)
                pause();
        }
        close(ready[1]);
        must(read(ready[0], &byte, 1) == 0, "ready");
        close(ready[0]);
        kill(pid, SIGTERM);
        must(wait4(pid, &status, 0, NULL) == pid, "wait4");
        say("'case': '%s', 'pid': %d, 'reaper_pid': %d, 'killer_kind': null, 'killer_pid': null, 'sender_pid': %d, %s", name, pid, getpid(),
            getpid(), ending(status));
    }
}

/* Clones with another exit signal need __WALL or __WCLONE; those without any have no zombie moment of their own. */
static void exit_signals(const char *name)
{
    signal(SIGUSR1, SIG_IGN);
    for (int i = 0; i < 3; i++) {
        pid_t pid = plain_clone3(0, SIGUSR1);
        if (!pid)
            _exit(10 + i);
        must(wait4(pid, NULL, i == 1 ? __WCLONE : __WALL, NULL) == pid, "other signal");
        say("'case': '%s', 'pid': %d, 'exit_signal': 10, 'reaper_pid': %d, 'reap_call': 'wait4', 'reap_options': '%s', 'exit_code': %d",
            name, pid, getpid(), i == 1 ? "__WCLONE" : "__WALL", 10 + i);
    }
    for (int i = 0; i < 5; i++) {
        pid_t pid = plain_clone3(0, 0);
        if (!pid)
            _exit(20 + i);
        if (i == 3) {
            until_zombie(pid);
            sleep_ms(40);
        }
        must(wait4(pid, NULL, __WALL, NULL) == pid, "no signal");
        say("'case': '%s', 'pid': %d, 'exit_signal': 0, 'reaper_pid': %d, 'reap_call': 'wait4', 'reap_options': '__WALL', 'exit_code': %d",
            name, pid, getpid(), 20 + i);
    }
}

static void released_alone(const char *name, int count, const char *how)
{
    pid_t pids[8];
    unsigned long long starts[8];
    int gate[2];
    must(pipe(gate) == 0, "pipe");
    for (int i = 0; i < count; i++) {
        pids[i] = child(30 + i, gate);
        starts[i] = starttime(pids[i]);
    }
    close(gate[0]);
    close(gate[1]);
    must(wait4(-1, NULL, 0, NULL) == -1 && errno == ECHILD, "ECHILD");
    for (int i = 0; i < count; i++)
        say("'case': '%s', 'pid': %d, 'starttime': %llu, 'ppid': %d, 'reap_call': 'autoreap', 'reaper_pid': null, 'reaper_tid': null, "
            "'exit_code': %d, 'state': 'gone', 'how': '%s', 'after_reap_ns': %lld",
            name, pids[i], starts[i], getpid(), 30 + i, how, now_ns());
}

static void ignored(const char *name)
{
    signal(SIGCHLD, SIG_IGN);
    released_alone(name, 5, "ignored");
}

static void nocldwait(const char *name)
{
    struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &action, NULL);
    released_alone(name, 3, "nocldwait");
}

/* Ignored only after the child died: the zombie stays until it is waited for. */
static void ignored_too_late(const char *name)
{
    pid_t pid = child(40, NULL);
    until_zombie(pid);
    signal(SIGCHLD, SIG_IGN);
    must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
    say("'case': '%s', 'pid': %d, 'reap_call': 'wait4', 'reaper_pid': %d, 'exit_code': 40", name, pid, getpid());
}

#define BIG (128 << 20)

/* What takes the kernel a while to give back; no child has it too. */
static void keep(long bytes)
{
    char *big = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(big != MAP_FAILED, "memory");
    madvise(big, bytes, MADV_NOHUGEPAGE);
    madvise(big, bytes, MADV_DONTFORK);
    memset(big, 1, bytes);
}

/* Begin to ignore SIGCHLD while a child dies; returns its number. */
static pid_t ignore_amid_exit(void)
{
    signal(SIGCHLD, SIG_DFL);
    pid_t pid = plain_fork();
    if (!pid) {
        keep(BIG);
        _exit(41);
    }
    while (!is_exiting(pid))
        ;
    sleep_ms(1);
    signal(SIGCHLD, SIG_IGN);
    return pid;
}

static void was_ignored(const char *name, pid_t pid, pid_t parent)
{
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'adopter_pid': null, 'reap_call': 'autoreap', 'reaper_pid': null, 'exit_code': 41",
        name, pid, parent);
}

/* Ignored only while the child dies, which takes as long as there is memory to give back: nobody is told, there is no zombie. */
static void ignored_amid_exit(const char *name)
{
    for (int tries = 0; tries < 20; tries++) {
        pid_t pid = ignore_amid_exit();
        if (wait4(pid, NULL, 0, NULL) != pid) { /* else it was a zombie already */
            was_ignored(name, pid, getpid());
            return;
        }
    }
    must(0, "a child that is slow to die");
}

/* The same by a parent that dies itself, more slowly than the child; who would inherit that does not ignore SIGCHLD. */
static void ignored_by_a_dying_parent(const char *name)
{
    must(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "subreaper");
    for (int tries = 0; tries < 20; tries++) {
        pid_t parent, pid;
        int tell[2];
        must(pipe(tell) == 0, "pipe");
        parent = plain_fork();
        if (!parent) {
            keep(4L * BIG);
            pid = ignore_amid_exit();
            must(write(tell[1], &pid, sizeof pid) == sizeof pid, "write");
            _exit(0);
        }
        must(read(tell[0], &pid, sizeof pid) == sizeof pid, "read");
        must(wait4(parent, NULL, 0, NULL) == parent, "wait4");
        if (wait4(pid, NULL, 0, NULL) != pid) { /* else the parent was faster */
            was_ignored(name, pid, parent);
            return;
        }
    }
    must(0, "a child that dies faster than its parent");
}

/* A wait that raises no event: the 32-bit system call, where the kernel has it. */
static void reap_unseen(pid_t pid)
{
#ifdef __x86_64__
    pid_t reaped;
    asm volatile("int $0x80" : "=a"(reaped) : "a"(7), "b"(pid), "c"(0), "d"(0) : "memory");
    must(reaped == pid, "waitpid of 32 bits");
#else
    must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
#endif
}

/* An heir that ignores SIGCHLD as the parent of a zombie dies, and does so no more when it inherits the zombie: that stays one. */
static void ignored_no_more(const char *name)
{
    must(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "subreaper");
    for (int tries = 0; tries < 20; tries++) {
        pid_t parent, pid;
        int tell[2];
        must(pipe(tell) == 0, "pipe");
        signal(SIGCHLD, SIG_IGN);
        parent = plain_fork();
        if (!parent) {
            signal(SIGCHLD, SIG_DFL);
            keep(4L * BIG);
            pid = child(42, NULL);
            until_zombie(pid);
            must(write(tell[1], &pid, sizeof pid) == sizeof pid, "write");
            _exit(0);
        }
        must(read(tell[0], &pid, sizeof pid) == sizeof pid, "read");
        while (!is_exiting(parent))
            ;
        sleep_ms(1);
        signal(SIGCHLD, SIG_DFL);
        if (wait4(parent, NULL, 0, NULL) == parent && stat_of(pid, NULL) == 'Z') { /* else the parent was faster */
            say("'case': '%s', 'pid': %d, 'ppid': %d, 'heir': %d, 'exit_code': 42", name, pid, parent, getpid());
            reap_unseen(pid);
            sleep_ms(200); /* until the kernel has freed it */
            return;
        }
    }
    must(0, "a parent that is slow to die");
}

int main(int count, char **arguments)
{
    struct rlimit cores = {0, 0};
    if (count == 2) {
        must(chdir(arguments[1]) == 0, "chdir");
        cores.rlim_cur = cores.rlim_max = 1 << 20;
    }
    setrlimit(RLIMIT_CORE, &cores);
    in_process("codes", codes);
    in_process("killed", killed_by_a_process);
    in_process("self-killed", killed_by_itself);
    in_process("timer", killed_by_a_timer);
    in_process("pdeathsig", killed_by_parent_death);
    in_process("caught", caught);
    in_process("exit-signals", exit_signals);
    in_process("ignored", ignored);
    in_process("nocldwait", nocldwait);
    in_process("ignored-too-late", ignored_too_late);
    in_process("ignored-amid-exit", ignored_amid_exit);
    in_process("ignored-by-a-dying-parent", ignored_by_a_dying_parent);
    in_process("ignored-no-more", ignored_no_more);
    return 0;
}
