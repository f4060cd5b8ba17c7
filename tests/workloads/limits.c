/* Forks that fail: 3 with flags that make no sense, 5 over RLIMIT_NPROC as an ordinary user, 7 over a cgroup's pids.max; and a
 * child that the kernel kills because its cgroup is out of memory.
 * argv[1] is an unused user number; argv[2] the cgroup.procs of a cgroup with room for 3 processes, argv[3] of one with
 * 16 MiB of memory; "" where there is none. */
#include "witness.h"

static uid_t user;
static const char *few_pids, *little_memory;

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

static void told(const char *name, int failed, int error, const char *limit, int made)
{
    say("'case': '%s', 'what': 'failed', 'pid': %d, 'tid': %d, 'failed': %d, 'errno': %d, 'limit': %s, 'made': %d", name, getpid(),
        thread_number(), failed, error, limit, made);
}

/* Memory cannot be unshared from signal handlers: the kernel refuses, whatever the call. */
static void senseless(const char *name)
{
    struct clone_args arguments = {.flags = CLONE_SIGHAND, .exit_signal = SIGCHLD};
    for (int i = 0; i < 2; i++)
        must(syscall(SYS_clone, CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0) == -1 && errno == EINVAL, "clone");
    must(syscall(SYS_clone3, &arguments, sizeof arguments) == -1 && errno == EINVAL, "clone3");
    told(name, 3, EINVAL, "null", 0);
}

/* 2 children fit beside this process; the next `count` forks fail. */
static void until_full(const char *name, const char *limit, int count)
{
    int gate[2];
    must(pipe(gate) == 0, "pipe");
    child(41, gate);
    child(42, gate);
    for (int i = 0; i < count; i++)
        must(try_plain_fork() == -1 && errno == EAGAIN, "a fork that fails");
    close(gate[0]);
    close(gate[1]);
    while (wait4(-1, NULL, 0, NULL) > 0)
        ;
    told(name, count, EAGAIN, limit, 2);
}

static void over_nproc(const char *name)
{
    struct rlimit limit = {3, 3};
    must(setrlimit(RLIMIT_NPROC, &limit) == 0, "setrlimit");
    must(setresgid(user, user, user) == 0 && setresuid(user, user, user) == 0, "setresuid");
    until_full(name, "'RLIMIT_NPROC'", 5);
}

static void move_to(const char *procs)
{
    int file = open(procs, O_WRONLY);
    must(file >= 0 && write(file, "0", 1) == 1, procs);
    close(file);
}

static void over_pids_max(const char *name)
{
    move_to(few_pids);
    until_full(name, "'pids.max'", 7);
}

static void out_of_memory(const char *name)
{
    int status;
    move_to(little_memory);
    pid_t pid = plain_fork();
    if (!pid) {
        volatile char *memory = malloc(64 << 20);
        for (int i = 0; i < 64 << 20; i += 4096)
            memory[i] = 1;
        _exit(1);
    }
    must(wait4(pid, &status, 0, NULL) == pid, "wait4");
    say("'case': '%s', 'pid': %d, 'reaper_pid': %d, 'killer_kind': 'oom', 'killer_pid': null, %s", name, pid, getpid(), ending(status));
}

int main(int count, char **arguments)
{
    must(count == 4, "usage: limits UID FEW_PIDS LITTLE_MEMORY");
    user = atoi(arguments[1]);
    few_pids = arguments[2];
    little_memory = arguments[3];
    in_process("senseless", senseless);
    in_process("nproc", over_nproc);
    if (*few_pids)
        in_process("pids-max", over_pids_max);
    if (*little_memory)
        in_process("oom", out_of_memory);
    return 0;
}
