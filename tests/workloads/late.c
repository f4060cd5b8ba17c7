/* A wait call that comes back late: the child is released, but the page for its status is not there yet, and who brings the page first
 * gives the child's number to others. Runs in a PID namespace that it gives a pid_max of argv[1]. */
#include "witness.h"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>

enum { PAGE = 4096 };

static int faults;
static char *page;
static int report[2];
static pid_t wanted, taker, taken; /* `taken` is the taker's number outside */

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

/* Forks until the number `wanted` has a new owner, which exits when it is told to. */
static void *give_number_away(void *unused)
{
    struct pollfd poll_fault = {.fd = faults, .events = POLLIN};
    struct uffd_msg message;
    struct uffdio_zeropage zero = {.range = {.start = (uintptr_t)page, .len = PAGE}};
    must(poll(&poll_fault, 1, -1) == 1 && read(faults, &message, sizeof message) == sizeof message, "fault");
    for (int tries = 0; !taker; tries++) {
        must(tries < 10000, "the number does not come back");
        pid_t pid = plain_fork();
        if (!pid) {
            pid_t self = outer_pid();
            if (getpid() == wanted) {
                must(write(report[1], &self, sizeof self) == sizeof self, "tell");
                pause();
            }
            _exit(0);
        }
        if (pid == wanted)
            taker = read(report[0], &taken, sizeof taken) == sizeof taken ? pid : 0;
        else
            must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
    }
    must(ioctl(faults, UFFDIO_ZEROPAGE, &zero) == 0, "page");
    return unused;
}

int main(int count, char **arguments)
{
    struct uffdio_api api = {.api = UFFD_API};
    int most = open("/proc/sys/kernel/pid_max", O_WRONLY);
    must(count == 2 && write(most, arguments[1], strlen(arguments[1])) > 0, "pid_max");
    must(pipe(report) == 0, "pipe");
    faults = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api))
        return 77;
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register there = {.range = {.start = (uintptr_t)page, .len = PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    must(ioctl(faults, UFFDIO_REGISTER, &there) == 0, "register");
    pthread_t thread;
    must(pthread_create(&thread, NULL, give_number_away, NULL) == 0, "pthread_create");

    pid_t outer = 0;
    while (!outer) { /* numbers below 300 do not come back */
        wanted = plain_fork();
        if (!wanted) {
            pid_t self = outer_pid();
            must(getpid() < 300 || write(report[1], &self, sizeof self) == sizeof self, "tell");
            _exit(41);
        }
        if (wanted < 300)
            must(wait4(wanted, NULL, 0, NULL) == wanted, "wait4");
        else
            must(read(report[0], &outer, sizeof outer) == sizeof outer, "hear");
    }
    unsigned long long start = starttime(outer);
    long long before_ns = now_ns();
    must(wait4(wanted, (int *)page, 0, NULL) == wanted, "late wait4");
    say("'case': 'late', 'pid': %d, 'ns_pid': %d, 'starttime': %llu, 'exit_code': 41, 'reaper_pid': %d, 'reap_call': 'wait4', "
        "'before_reap_ns': %lld, 'state': 'gone'",
        outer, wanted, start, outer_pid(), before_ns);
    pthread_join(thread, NULL);
    before_ns = now_ns();
    kill(taker, SIGKILL);
    must(wait4(taker, NULL, 0, NULL) == taker, "taker");
    say("'case': 'late', 'what': 'taker', 'pid': %d, 'ns_pid': %d, 'reaper_pid': %d, 'reap_call': 'wait4', 'before_reap_ns': %lld, %s",
        taken, taker, outer_pid(), before_ns, "'term_signal': 'SIGKILL', 'state': 'gone'");
    return 0;
}
