/* Children that outlive their parents: orphans that pid 1 inherits, that a subreaper inherits (reaping them, or ignoring
 * SIGCHLD), zombies that a dying parent leaves behind, a child that is amid its exit, one that has gone just before; a tree of three
 * generations; a burst of 997 children. */
#include "witness.h"

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

static void tell(int report, pid_t pid)
{
    must(write(report, &pid, sizeof pid) == sizeof pid, "tell");
}

static pid_t hear(int report)
{
    pid_t pid;
    must(read(report, &pid, sizeof pid) == sizeof pid, "hear");
    return pid;
}

static void subreaper(void)
{
    must(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "subreaper");
}

/* 2 double forks. Who inherits the orphan is for the system to say: pid 1, or a subreaper above the recorder. */
static void orphans(const char *name)
{
    int status;
    for (int i = 0; i < 2; i++) {
        int report[2], gate[2];
        must(pipe(report) == 0 && pipe(gate) == 0, "pipe");
        pid_t parent = plain_fork();
        if (!parent) {
            char byte;
            pid_t self = getpid();
            pid_t pid = plain_fork();
            if (!pid) {
                while (getppid() == self)
                    sleep_ms(1);
                tell(report[1], getpid());
                tell(report[1], getppid());
                close(gate[1]);
                must(read(gate[0], &byte, 1) == 0, "gate");
                _exit(60 + i);
            }
            _exit(5);
        }
        must(wait4(parent, &status, 0, NULL) == parent, "parent");
        pid_t pid = hear(report[0]), adopter = hear(report[0]);
        unsigned long long start = starttime(pid);
        long long before_ns = now_ns();
        close(gate[0]);
        close(gate[1]);
        while (starttime(pid) == start)
            sleep_ms(1);
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'adopter_pid': %d, 'starttime': %llu, 'exit_code': %d, 'state': 'gone', "
            "'after_fork_ns': %lld, 'gone_ns': %lld, 'complete': null",
            name, pid, parent, adopter, start, 60 + i, before_ns, now_ns());
    }
}

/* 3 live orphans come to the subreaper, which reaps them. */
static void to_a_subreaper(const char *name)
{
    subreaper();
    int report[2], gate[2], status;
    must(pipe(report) == 0 && pipe(gate) == 0, "pipe");
    pid_t parent = plain_fork();
    if (!parent) {
        for (int i = 0; i < 3; i++)
            tell(report[1], child(20 + i, gate));
        _exit(6);
    }
    must(wait4(parent, &status, 0, NULL) == parent, "parent");
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < 3; i++) {
        pid_t pid = hear(report[0]);
        must(wait4(pid, &status, 0, NULL) == pid, "orphan");
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'adopter_pid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', 'exit_code': %d", name, pid,
            parent, getpid(), getpid(), 20 + i);
    }
}

/* 5 zombies lie there for more than 30 ms when their parent dies; whoever inherits them reaps them, or ignores SIGCHLD. */
static pid_t leaves_zombies(int report)
{
    pid_t parent = plain_fork();
    if (parent)
        return parent;
    signal(SIGCHLD, SIG_DFL);
    pid_t pids[5];
    for (int i = 0; i < 5; i++)
        pids[i] = child(30 + i, NULL);
    for (int i = 0; i < 5; i++)
        until_zombie(pids[i]);
    sleep_ms(50);
    for (int i = 0; i < 5; i++)
        tell(report, pids[i]);
    _exit(7);
}

static void zombies_handed_over(const char *name)
{
    subreaper();
    int report[2], status;
    must(pipe(report) == 0, "pipe");
    pid_t parent = leaves_zombies(report[1]);
    must(wait4(parent, &status, 0, NULL) == parent, "parent");
    for (int i = 0; i < 5; i++) {
        pid_t pid = hear(report[0]);
        must(wait4(pid, &status, 0, NULL) == pid, "zombie");
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'adopter_pid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', 'exit_code': %d, "
            "'least_zombie_ms': 30",
            name, pid, parent, getpid(), getpid(), 30 + i);
    }
}

static void zombies_inherited_and_ignored(const char *name)
{
    subreaper();
    signal(SIGCHLD, SIG_IGN);
    int report[2];
    must(pipe(report) == 0, "pipe");
    pid_t parent = leaves_zombies(report[1]);
    must(wait4(-1, NULL, 0, NULL) == -1 && errno == ECHILD, "ECHILD");
    for (int i = 0; i < 5; i++)
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'adopter_pid': %d, 'reaper_pid': null, 'reap_call': 'autoreap', 'exit_code': %d, "
            "'least_zombie_ms': 30",
            name, hear(report[0]), parent, getpid(), 30 + i);
}

/* Its parent dies while the kernel takes the memory of the child back: after its last thread, before anybody is notified. */
static pid_t dies_amid_an_exit(int report, void (*to_parent)(int))
{
    const size_t bytes = 128 << 20;
    pid_t parent = plain_fork();
    if (parent)
        return parent;
    signal(SIGCHLD, to_parent);
    int seen = -1;
    pid_t pid = 0;
    while (seen < 0) { /* on a busy machine a child that nobody waits for may be gone before it is seen to exit */
        pid = plain_fork();
        if (!pid) {
            char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            must(memory != MAP_FAILED, "mmap");
            madvise(memory, bytes, MADV_NOHUGEPAGE);
            for (size_t at = 0; at < bytes; at += 4096)
                memory[at] = 1;
            _exit(40);
        }
        while (!(seen = is_exiting(pid)))
            ;
    }
    tell(report, pid);
    sleep_ms(1);
    _exit(8);
}

/* The child comes to this process amid its exit. On a busy machine it can be through with that before its parent is gone; then nobody has
 * inherited it amid its exit, and all begins anew. */
static pid_t inherited_amid_its_exit(void (*to_parent)(int), pid_t *parent)
{
    int report[2];
    must(pipe(report) == 0, "pipe");
    for (;;) {
        *parent = dies_amid_an_exit(report[1], to_parent);
        must(wait4(*parent, NULL, 0, NULL) == *parent || errno == ECHILD, "parent"); /* gone, also where SIGCHLD is ignored */
        pid_t pid = hear(report[0]);
        char state = stat_of(pid, NULL);
        if (state && state != 'Z' && state != 'X')
            return pid;
        must(wait4(pid, NULL, 0, NULL) == pid || errno == ECHILD, "child");
    }
}

static void parent_dies_amid_the_exit(const char *name)
{
    subreaper();
    int status;
    pid_t parent, pid = inherited_amid_its_exit(SIG_DFL, &parent);
    must(wait4(pid, &status, 0, NULL) == pid, "child");
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'adopter_pid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', %s, 'notes': null", name, pid,
        parent, getpid(), getpid(), ending(status));
}

static void ignored_by(const char *name, void (*to_parent)(int))
{
    subreaper();
    signal(SIGCHLD, SIG_IGN);
    pid_t parent, pid = inherited_amid_its_exit(to_parent, &parent);
    must(wait4(-1, NULL, 0, NULL) == -1 && errno == ECHILD, "ECHILD");
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'adopter_pid': %d, 'reaper_pid': null, 'reap_call': 'autoreap', 'exit_code': 40, "
        "'notes': null",
        name, pid, parent, getpid());
}

static void ignored_amid_the_exit(const char *name)
{
    ignored_by(name, SIG_DFL);
}

static void ignored_twice(const char *name)
{
    ignored_by(name, SIG_IGN);
}

/* A child that its parent ignores is gone before that dies, but so soon before that the kernel frees the last of it when its parent is a
 * zombie. Who would have inherited it ignores SIGCHLD, too. */
static void ignored_then_its_parent_dies(const char *name)
{
    subreaper();
    signal(SIGCHLD, SIG_IGN);
    int report[2];
    must(pipe(report) == 0, "pipe");
    if (!plain_fork()) {
        signal(SIGCHLD, SIG_DFL);
        pid_t parent = plain_fork();
        if (!parent) {
            signal(SIGCHLD, SIG_IGN);
            tell(report[1], getpid());
            pid_t pid = child(41, NULL);
            while (stat_of(pid, NULL))
                ;
            tell(report[1], pid);
            _exit(9);
        }
        until_zombie(parent);
        sleep_ms(200);
        must(wait4(parent, NULL, 0, NULL) == parent, "parent");
        _exit(10);
    }
    must(wait4(-1, NULL, 0, NULL) == -1 && errno == ECHILD, "ECHILD");
    pid_t parent = hear(report[0]), pid = hear(report[0]);
    say("'case': '%s', 'pid': %d, 'ppid': %d, 'adopter_pid': null, 'reaper_pid': null, 'reap_call': 'autoreap', 'exit_code': 41, "
        "'notes': null",
        name, pid, parent);
}

/* 2 children with 3 children with 5 children each: 38 in all. */
static void generation(const char *name, int depth)
{
    static const int width[3] = {2, 3, 5};
    int status;
    for (int i = 0; depth < 3 && i < width[depth]; i++) {
        pid_t pid = plain_fork();
        if (!pid) {
            generation(name, depth + 1);
            _exit(10 * depth + i);
        }
        unsigned long long start = starttime(pid);
        must(wait4(pid, &status, 0, NULL) == pid, "wait4");
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'forker_pid': %d, 'starttime': %llu, 'reaper_pid': %d, %s", name, pid, getpid(), getpid(),
            start, getpid(), ending(status));
    }
}

static void generations(const char *name)
{
    generation(name, 0);
}

/* All 997 alive at once, then zombies at once, then reaped in one sweep. */
static void burst(const char *name)
{
    static pid_t pids[997];
    int gate[2], status;
    must(pipe(gate) == 0, "pipe");
    for (int i = 0; i < 997; i++)
        pids[i] = child(i % 251, gate);
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < 997; i++)
        until_zombie(pids[i]);
    for (int i = 0; i < 997; i++) {
        must(wait4(pids[i], &status, 0, NULL) == pids[i], "wait4");
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', %s", name, pids[i], getpid(), getpid(),
            ending(status));
    }
}

int main(void)
{
    in_process("orphans", orphans);
    in_process("subreaper", to_a_subreaper);
    in_process("handed-over", zombies_handed_over);
    in_process("handed-to-ignorer", zombies_inherited_and_ignored);
    in_process("amid-the-exit", parent_dies_amid_the_exit);
    in_process("ignored-amid-the-exit", ignored_amid_the_exit);
    in_process("ignored-twice", ignored_twice);
    in_process("ignored-then-alone", ignored_then_its_parent_dies);
    in_process("generations", generations);
    in_process("burst", burst);
    return 0;
}
