/* reaps MILLISECONDS FILE: forks children one after the other for that long, and waits for each. FILE.new gets a line per child: its
 * number, before the wait for it, then when that had returned. At the end it becomes FILE, which is whole.
 * Ends with 7, or 1 when anything went wrong. */
#include "witness.h"

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long long now = now_ns(), end = now + atoll(argv[1]) * 1000000;
    char unfinished[4096];
    snprintf(unfinished, sizeof unfinished, "%s.new", argv[2]);
    int file = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0)
        return 1;
    while (now < end) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(3);
        int status;
        if (pid < 0 || dprintf(file, "%d ", pid) < 0 || waitpid(pid, &status, 0) != pid || status != 3 << 8)
            return 1;
        now = now_ns();
        if (dprintf(file, "%lld\n", now) < 0)
            return 1;
    }
    if (close(file) || rename(unfinished, argv[2]))
        return 1;
    return 7;
}
