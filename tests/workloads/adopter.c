/* "adopter init": the first process of a PID namespace, which reaps whatever comes to it, 2 children, and ends.
 * "adopter visit": run from outside with nsenter, forks twice there 2 times and is gone: its orphans come to init. */
#include "witness.h"

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

static int init(void)
{
    int status;
    say("'case': 'adopted', 'what': 'init', 'pid': %d, 'ns_pid': %d", outer_pid(), getpid());
    for (int i = 0; i < 2;) {
        pid_t pid = wait4(-1, &status, 0, NULL);
        if (pid < 0) {
            must(errno == ECHILD, "wait4");
            sleep_ms(5);
            continue;
        }
        say("'case': 'adopted', 'what': 'reaped', 'ns_pid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', 'reap_target': 'any', %s", pid,
            outer_pid(), ending(status));
        i++;
    }
    return 0;
}

/* The parent lives until the orphan has run for 20 ms: the orphan was made before anybody followed it. */
static int visit(void)
{
    for (int i = 0; i < 2; i++) {
        pid_t parent = plain_fork();
        if (!parent) {
            pid_t self = getpid();
            if (!plain_fork()) {
                unsigned long long start = starttime(outer_pid());
                while (getppid() == self)
                    sleep_ms(1);
                say("'case': 'adopted', 'what': 'orphan', 'pid': %d, 'ns_pid': %d, 'starttime': %llu, 'origin': 'adopted'", outer_pid(),
                    getpid(), start);
                _exit(80 + i);
            }
            sleep_ms(20);
            _exit(0);
        }
        must(wait4(parent, NULL, 0, NULL) == parent, "parent");
    }
    return 0;
}

int main(int count, char **arguments)
{
    return count > 1 && !strcmp(arguments[1], "visit") ? visit() : init();
}
