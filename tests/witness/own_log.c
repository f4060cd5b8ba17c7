/* A program's own log: with LD_PRELOAD it writes what the program's forks, waits and exits did, and when, to the file OWN_LOG.
 *
 * One JSON line a call, CLOCK_BOOTTIME ns on both sides of it: `fork` and `spawn` with the child, `wait` with the child and its
 * wait status, `exit` with the code and the time right before. vfork cannot be wrapped (it returns twice on one stack), nor what
 * libc calls by itself (system, popen). A program that drops its environment, or makes the system calls itself, writes nothing.
 */
#include "witness.h"

#include <dlfcn.h>
#include <spawn.h>

#define FIND(name) (real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define IS_END(status) (WIFEXITED(status) || WIFSIGNALED(status))

static char path[512];

static __typeof__(&fork) real_fork;
static __typeof__(&posix_spawn) real_posix_spawn, real_posix_spawnp;
static __typeof__(&wait4) real_wait4;
static __typeof__(&waitid) real_waitid;

/* Opened for each line: programs close what they do not know. */
__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    int before = errno;
    char line[512];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    for (int i = 0; i < length; i++)
        if (line[i] == '\'')
            line[i] = '"';
    int file = *path ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (file >= 0) {
        if (write(file, line, length) < 0)
            errno = 0; /* nobody can be told */
        close(file);
    }
    errno = before;
}

static void note_child(const char *what, pid_t child, long long since)
{
    long long until = now_ns();
    if (child > 0)
        note("{'what': '%s', 'pid': %d, 'tid': %d, 'child': %d, 'before_ns': %lld, 'after_ns': %lld}\n", what, getpid(),
             thread_number(), child, since, until);
}

static void note_wait(pid_t child, int status, long long since)
{
    long long until = now_ns();
    if (child > 0 && IS_END(status))
        note("{'what': 'wait', 'pid': %d, 'tid': %d, 'child': %d, 'status': %d, 'before_ns': %lld, 'after_ns': %lld}\n", getpid(),
             thread_number(), child, status, since, until);
}

pid_t fork(void)
{
    long long since = now_ns();
    pid_t child = real_fork();
    note_child("fork", child, since);
    return child;
}

int posix_spawn(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                char *const argv[], char *const environment[])
{
    pid_t child = 0;
    long long since = now_ns();
    int error = real_posix_spawn(&child, file, actions, attributes, argv, environment);
    if (!error)
        note_child("spawn", child, since);
    if (pid)
        *pid = child;
    return error;
}

int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                 char *const argv[], char *const environment[])
{
    pid_t child = 0;
    long long since = now_ns();
    int error = real_posix_spawnp(&child, file, actions, attributes, argv, environment);
    if (!error)
        note_child("spawn", child, since);
    if (pid)
        *pid = child;
    return error;
}

pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)
{
    int own = 0;
    long long since = now_ns();
    pid_t child = real_wait4(pid, &own, options, usage);
    note_wait(child, own, since);
    if (status && child > 0)
        *status = own;
    return child;
}

pid_t wait3(int *status, int options, struct rusage *usage)
{
    return wait4(-1, status, options, usage);
}

pid_t waitpid(pid_t pid, int *status, int options)
{
    return wait4(pid, status, options, NULL);
}

pid_t wait(int *status)
{
    return wait4(-1, status, 0, NULL);
}

int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    siginfo_t own = {0};
    long long since = now_ns();
    int error = real_waitid(type, id, &own, options);
    int status = own.si_code == CLD_EXITED ? (own.si_status & 0xff) << 8
                 : own.si_code == CLD_DUMPED ? own.si_status | 0x80
                 : own.si_code == CLD_KILLED ? own.si_status
                                             : 0x7f;
    if (!error && !(options & WNOWAIT))
        note_wait(own.si_pid, status, since);
    if (info && !error)
        *info = own;
    return error;
}

static void note_exit(int code)
{
    note("{'what': 'exit', 'pid': %d, 'tid': %d, 'code': %d, 'before_ns': %lld}\n", getpid(), thread_number(), code & 0xff, now_ns());
}

void _exit(int code)
{
    note_exit(code);
    syscall(SYS_exit_group, code);
    __builtin_unreachable();
}

void _Exit(int code)
{
    _exit(code);
}

/* exit(3) ends in libc's own _exit: this is the last of the program's own code. */
static void leaving(int code, void *nothing)
{
    (void)nothing;
    note_exit(code);
}

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("OWN_LOG");
    snprintf(path, sizeof path, "%s", name ? name : "");
    if (!FIND(fork) || !FIND(posix_spawn) || !FIND(posix_spawnp) || !FIND(wait4) || !FIND(waitid))
        die("libc");
    on_exit(leaving, NULL);
}
