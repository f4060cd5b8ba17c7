/* 8 processes make and reap children side by side, argv[1] in all, in a PID namespace with room for argv[2] numbers: each number is
 * given out thousands of times. A child exits with a code that only its parent knows; each reap is a line of the file argv[3]:
 * the child's number, the parent's, the code, and the clock before the fork and after the reap. */
#include "witness.h"

enum { FORKERS = 8, LINE = 5 };

int main(int count, char **arguments)
{
    char text[32];
    if (count != 4)
        die("usage: recycler CHILDREN PID_MAX LOG");
    int most = open("/proc/sys/kernel/pid_max", O_WRONLY), log = open(arguments[3], O_WRONLY | O_CREAT | O_APPEND, 0600);
    int length = snprintf(text, sizeof text, "%s", arguments[2]);
    if (most < 0 || log < 0 || write(most, text, length) != length)
        die("pid_max");
    for (int forker = 0; forker < FORKERS; forker++) {
        if (plain_fork())
            continue;
        unsigned random = 7 + forker;
        for (int i = atoi(arguments[1]) / FORKERS; i > 0; i--) {
            random = random * 1103515245 + 12345;
            int code = random >> 16 & 0xff, status;
            long long before_ns = now_ns();
            pid_t pid = try_plain_fork();
            if (!pid)
                _exit(code);
            if (pid < 0 || wait4(i % 2 ? pid : -1, &status, 0, NULL) != pid || WEXITSTATUS(status) != code)
                die("a child");
            long long line[LINE] = {pid, getpid(), code, before_ns, now_ns()};
            if (write(log, line, sizeof line) != sizeof line)
                die("log");
        }
        _exit(0);
    }
    while (wait4(-1, NULL, 0, NULL) > 0)
        ;
    return 0;
}
