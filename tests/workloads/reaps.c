/* reaps MILLISECONDS FILE: forks children one after the other for that long, and waits for each. Then writes FILE, whole at once:
 * per child its number and when the wait for it had returned. Ends with 7, or 1 when anything went wrong. */
#include "witness.h"

#define MOST 1000000

static struct {
    pid_t pid;
    long long reaped_ns;
} children[MOST];

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    long long now = now_ns(), end = now + atoll(argv[1]) * 1000000;
    int count = 0;
    for (; now < end && count < MOST; count++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(3);
        int status;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 3 << 8)
            return 1;
        now = now_ns();
        children[count].pid = pid;
        children[count].reaped_ns = now;
    }
    char unfinished[4096];
    snprintf(unfinished, sizeof unfinished, "%s.new", argv[2]);
    FILE *file = fopen(unfinished, "w");
    if (!file)
        return 1;
    for (int i = 0; i < count; i++)
        fprintf(file, "%d %lld\n", children[i].pid, children[i].reaped_ns);
    if (fclose(file) || rename(unfinished, argv[2]))
        return 1;
    return 7;
}
