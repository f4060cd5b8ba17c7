/* Forks at full speed until its standard input closes: two threads that fork, children that end at once, that stay zombies for a
 * while or until the end, that fork themselves, that leave orphans. Each fork and each reap is a record in the file that the
 * argument names.
 */
#include "witness.h"

#define OLDEST 4

struct record {
    long long before_ns;
    long long after_ns;
    int pid;
    int parent; /* 0: it was reaped between the two moments */
};

static int log_file;

static void note(int pid, int parent, long long before_ns)
{
    struct record record = {.before_ns = before_ns, .after_ns = now_ns(), .pid = pid, .parent = parent};
    if (write(log_file, &record, sizeof record) != sizeof record)
        _exit(97);
}

static int forked(int depth)
{
    long long before_ns = now_ns();
    int pid = fork();
    if (pid < 0)
        die("fork");
    if (pid) {
        note(pid, getpid(), before_ns);
        return pid;
    }
    if (depth == 0)
        _exit(0);
    int child = forked(depth - 1);
    if (depth % 2) /* else an orphan is left */
        waitpid(child, 0, 0);
    _exit(0);
}

static void reap(int pid)
{
    long long before_ns = now_ns();
    if (waitpid(pid, 0, 0) != pid)
        die("waitpid");
    note(pid, 0, before_ns);
}

static void *storm(void *unused)
{
    int waiting[8] = {};
    for (unsigned turn = 0;; turn++) {
        int *place = &waiting[turn % 8];
        if (*place)
            reap(*place);
        *place = forked(turn % 4);
    }
    return unused;
}

int main(int count, char **arguments)
{
    pthread_t thread;
    int oldest[OLDEST];
    char byte;
    log_file = open(arguments[count - 1], O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log_file < 0)
        die(arguments[count - 1]);
    for (int i = 0; i < OLDEST; i++)
        oldest[i] = forked(0);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&thread, 0, storm, 0))
            die("pthread_create");
    while (read(0, &byte, 1) > 0)
        ;
    for (int i = 0; i < OLDEST; i++)
        reap(oldest[i]);
    return 0;
}
