/* PID namespaces: one by unshare and fork with 3 children, one inside another with 2, and one whose init dies and leaves 2
 * live children and 3 zombies. /proc stays that of the outside, so that every process can say its number there. */
#include "witness.h"

struct numbers {
    pid_t outer, inner;
};

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

/* A child that tells its two numbers, then exits with `code` at once (gate NULL) or when killed. */
static struct numbers tell_child(int code, int lives)
{
    int report[2];
    struct numbers numbers;
    must(pipe(report) == 0, "pipe");
    pid_t pid = plain_fork();
    if (!pid) {
        numbers = (struct numbers){outer_pid(), getpid()};
        must(write(report[1], &numbers, sizeof numbers) == sizeof numbers, "tell");
        while (lives)
            pause();
        _exit(code);
    }
    must(read(report[0], &numbers, sizeof numbers) == sizeof numbers && numbers.inner == pid, "hear");
    close(report[0]);
    close(report[1]);
    return numbers;
}

static void children(const char *name, int count)
{
    int status;
    pid_t outer = outer_pid();
    for (int i = 0; i < count; i++) {
        struct numbers told = tell_child(20 + i, 0);
        unsigned long long start = starttime(told.outer);
        must(wait4(i ? told.inner : -1, &status, 0, NULL) == told.inner, "wait4");
        say("'case': '%s', 'pid': %d, 'ns_pid': %d, 'ppid': %d, 'forker_pid': %d, 'forker_tid': %d, 'starttime': %llu, 'reaper_pid': %d, "
            "'reaper_tid': %d, 'reap_call': 'wait4', 'reap_target': '%s', %s",
            name, told.outer, told.inner, outer, outer, outer, start, outer, outer, i ? "pid" : "any", ending(status));
    }
}

/* Reaps the init of the namespace, whose outer number it tells itself. */
static void wait_for_init(const char *name, pid_t pid, pid_t outer)
{
    int status;
    must(wait4(pid, &status, 0, NULL) == pid, "init");
    say("'case': '%s', 'what': 'init', 'pid': %d, 'ns_pid': 1, 'reaper_pid': %d, 'reap_call': 'wait4', %s", name, outer, outer_pid(),
        ending(status));
}

static int report[2];

static pid_t init_number(void)
{
    pid_t outer;
    must(read(report[0], &outer, sizeof outer) == sizeof outer, "read");
    return outer;
}

static void tell_init_number(void)
{
    pid_t outer = outer_pid();
    must(write(report[1], &outer, sizeof outer) == sizeof outer, "write");
}

static void unshared(const char *name)
{
    must(pipe(report) == 0 && unshare(CLONE_NEWPID) == 0, "unshare");
    pid_t pid = plain_fork();
    if (!pid) {
        tell_init_number();
        children(name, 3);
        _exit(9);
    }
    wait_for_init(name, pid, init_number());
}

static void nested(const char *name)
{
    must(pipe(report) == 0, "pipe");
    pid_t pid = plain_clone3(CLONE_NEWPID, SIGCHLD);
    if (!pid) {
        tell_init_number();
        int mine = report[0];
        must(pipe(report) == 0, "pipe");
        pid_t inner = plain_clone3(CLONE_NEWPID, SIGCHLD);
        if (!inner) {
            close(mine);
            tell_init_number();
            children(name, 2);
            _exit(10);
        }
        wait_for_init(name, inner, init_number());
        _exit(11);
    }
    wait_for_init(name, pid, init_number());
}

/* The kernel kills the 2 live ones and releases all 5: no process waits for them. */
static void death_of_init(const char *name)
{
    struct numbers numbers;
    int list[2];
    must(pipe(report) == 0 && pipe(list) == 0, "pipe");
    pid_t pid = plain_clone3(CLONE_NEWPID, SIGCHLD);
    if (!pid) {
        tell_init_number();
        for (int i = 0; i < 5; i++) {
            numbers = tell_child(30 + i, i < 2);
            if (i >= 2)
                until_zombie(numbers.outer);
            must(write(list[1], &numbers, sizeof numbers) == sizeof numbers, "write");
        }
        sleep_ms(40);
        _exit(12);
    }
    pid_t outer = init_number();
    wait_for_init(name, pid, outer);
    for (int i = 0; i < 5; i++) {
        must(read(list[0], &numbers, sizeof numbers) == sizeof numbers, "read");
        if (i < 2)
            say("'case': '%s', 'what': 'killed', 'pid': %d, 'ns_pid': %d, 'ppid': %d, 'exit_code': null, 'term_signal': 'SIGKILL', "
                "'killer_kind': 'pidns', 'state': 'gone'",
                name, numbers.outer, numbers.inner, outer);
        else
            say("'case': '%s', 'what': 'zombie', 'pid': %d, 'ns_pid': %d, 'ppid': %d, 'exit_code': %d, 'least_zombie_ms': 20, "
                "'reap_call': 'kernel', 'state': 'gone'",
                name, numbers.outer, numbers.inner, outer, 30 + i);
    }
}

int main(void)
{
    in_process("unshare", unshared);
    in_process("nested", nested);
    in_process("pidns-death", death_of_init);
    return 0;
}
