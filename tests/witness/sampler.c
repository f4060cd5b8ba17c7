/* sampler MICROSECONDS: looks at every process of /proc that was not there when it began, again and again, until stdin is closed.
 *
 * Prints one JSON line a process when it is gone, or at the end. Times are CLOCK_BOOTTIME ns around the reads, so each is a bound:
 * `alive_ns` the beginning of the last read that did not show a zombie, `zombie_ns` the end of the first that did, `there_ns` the
 * beginning of the last that showed anything, `gone_ns` the end of the first that showed nothing. `ppids` are the parents it was
 * seen with, as far as /proc said (of a process that is being released it says 0). A dead leader with living threads looks like a zombie here; `threads` is the most that were seen.
 */
#include "witness.h"

#include <dirent.h>

#define NUMBERS 4194304 /* the largest pid_max there is */
#define PARENTS 4

struct seen {
    unsigned long long start;
    long long first_ns, alive_ns, zombie_ns, there_ns;
    long looks;
    int ppids[PARENTS], parents, threads, outside;
};

static struct seen *known[NUMBERS];
static int living[NUMBERS], count;

static void leave(int pid, long long gone_ns)
{
    struct seen *seen = known[pid];
    char ppids[64] = "";
    for (int i = 0; i < seen->parents; i++)
        snprintf(ppids + strlen(ppids), sizeof ppids - strlen(ppids), i ? ", %d" : "%d", seen->ppids[i]);
    if (!seen->outside)
        say("'pid': %d, 'starttime': %llu, 'ppids': [%s], 'threads': %d, 'looks': %ld, 'first_ns': %lld, 'alive_ns': %lld, "
            "'zombie_ns': %lld, 'there_ns': %lld, 'gone_ns': %lld",
            pid, seen->start, ppids, seen->threads, seen->looks, seen->first_ns, seen->alive_ns, seen->zombie_ns, seen->there_ns,
            gone_ns);
    free(seen);
    known[pid] = NULL;
}

/* Returns whether there is such a process, and notes what it looks like. */
static int look(int pid, int outside)
{
    char path[32], text[1024], state = 0;
    int ppid = 0, threads = 0;
    unsigned long long start = 0;
    long long before = now_ns(), after;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    after = now_ns();
    struct seen *seen = known[pid];
    if (length > 0) {
        text[length] = 0;
        sscanf(strrchr(text, ')') + 2,
               "%c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %d %*d %llu", &state, &ppid, &threads, &start);
    }
    if (seen && (length <= 0 || start != seen->start)) {
        leave(pid, after);
        seen = NULL;
    }
    if (length <= 0)
        return 0;
    if (!seen) {
        seen = known[pid] = calloc(1, sizeof *seen);
        if (!seen)
            die("calloc");
        seen->start = start;
        seen->first_ns = before;
        seen->outside = outside;
    }
    seen->looks++;
    seen->there_ns = before;
    if (state != 'Z' && state != 'X')
        seen->alive_ns = before;
    else if (!seen->zombie_ns)
        seen->zombie_ns = after;
    if (threads > seen->threads)
        seen->threads = threads;
    if (ppid && seen->parents < PARENTS && (!seen->parents || seen->ppids[seen->parents - 1] != ppid))
        seen->ppids[seen->parents++] = ppid;
    return 1;
}

static void round_trip(DIR *proc, int outside)
{
    struct dirent *entry;
    int still = 0;
    rewinddir(proc);
    while ((entry = readdir(proc))) {
        int pid = atoi(entry->d_name);
        if (pid > 0 && pid < NUMBERS && !known[pid] && look(pid, outside))
            living[count++] = pid;
    }
    for (int i = 0; i < count; i++)
        if (known[living[i]] && (known[living[i]]->outside ? 1 : look(living[i], 0)))
            living[still++] = living[i];
    count = still;
}

int main(int argc, char **argv)
{
    DIR *proc = opendir("/proc");
    long long interval_ns = argc > 1 ? atoi(argv[1]) * 1000LL : 1000000, next = now_ns(), before, slowest = 0;
    char byte;
    if (!proc)
        die("/proc");
    if (fcntl(0, F_SETFL, O_NONBLOCK))
        die("stdin");
    round_trip(proc, 1);
    say("'ready': %d", count);
    while (read(0, &byte, 1) < 0 && errno == EAGAIN) {
        before = now_ns();
        round_trip(proc, 0);
        if (now_ns() - before > slowest)
            slowest = now_ns() - before;
        next += interval_ns;
        if (next < now_ns())
            next = now_ns();
        struct timespec until = {next / 1000000000, next % 1000000000};
        clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &until, NULL);
    }
    for (int i = 0; i < count; i++)
        if (known[living[i]])
            leave(living[i], 0);
    say("'slowest_ns': %lld", slowest);
    return 0;
}
