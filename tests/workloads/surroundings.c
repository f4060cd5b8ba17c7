/* Prints everything a program can see of how it was started, then reads its stdin to the end and prints how much there was.
 * Run bare and under a recorder the output must be the same; numbers of pipes and its own pid are left out. */
#include "witness.h"
#include <dirent.h>
#include <sys/personality.h>
#include <sys/stat.h>

/* A file of /proc; only the lines that begin with one of `keys`, when given; NUL bytes become new lines. */
static void show(const char *path, const char *keys)
{
    static char text[65536];
    char *rest = text;
    FILE *file = fopen(path, "r");
    if (!file)
        die(path);
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    for (size_t i = 0; i < length; i++)
        if (!text[i])
            text[i] = '\n';
    text[length] = 0;
    printf("== %s\n", path);
    for (char *line; (line = strsep(&rest, "\n"));) {
        char key[64] = " ";
        sscanf(line, "%60[A-Za-z_]", key + 1);
        if (*line && (!keys || strstr(keys, strcat(key, " "))))
            printf("%s\n", line);
    }
}

static void show_links(const char *path, int with_flags)
{
    DIR *directory = opendir(path);
    printf("== %s\n", path);
    for (struct dirent *entry; (entry = readdir(directory));) {
        char name[512], target[512] = "";
        int number = atoi(entry->d_name);
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] == '.' || (with_flags && number == dirfd(directory)))
            continue;
        if (readlink(name, target, sizeof target - 1) < 0)
            die(name);
        if (!strncmp(target, "pipe:", 5) || !strncmp(target, "socket:", 7))
            *strchr(target, ':') = 0;
        if (with_flags)
            printf("%s %s flags %#x at %lld\n", entry->d_name, target, fcntl(number, F_GETFL), (long long)lseek(number, 0, SEEK_CUR));
        else
            printf("%s %s\n", entry->d_name, target);
    }
    closedir(directory);
}

int main(int count, char **arguments)
{
    char byte, directory[4096];
    int read_bytes = 0;
    sigset_t blocked;
    for (int i = 1; i < count; i++)
        printf("argument %s\n", arguments[i]);
    printf("group %d session %d foreground %d tty %s\n", getpgrp(), getsid(0), tcgetpgrp(2), isatty(2) ? ttyname(2) : "none");
    printf("directory %s nice %d persona %d\n", getcwd(directory, sizeof directory), getpriority(PRIO_PROCESS, 0), personality(-1));
    printf("subreaper %d deathsig %d timerslack %d\n", ({ int is = -1; prctl(PR_GET_CHILD_SUBREAPER, &is); is; }),
           ({ int is = -1; prctl(PR_GET_PDEATHSIG, &is); is; }), prctl(PR_GET_TIMERSLACK));
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    printf("children %s\n", wait4(-1, NULL, WNOHANG, NULL) < 0 && errno == ECHILD ? "none" : "some");
    show("/proc/self/status",
         " Umask State TracerPid Uid Gid Groups Threads SigPnd ShdPnd SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb "
         "NoNewPrivs Seccomp Cpus_allowed_list Mems_allowed_list ");
    show("/proc/self/limits", NULL);
    show("/proc/self/environ", NULL);
    show("/proc/self/cgroup", NULL);
    show("/proc/self/oom_score_adj", NULL);
    show("/proc/self/coredump_filter", NULL);
    show("/proc/self/loginuid", NULL);
    show_links("/proc/self/ns", 0);
    show_links("/proc/self/fd", 1);
    while (read(0, &byte, 1) == 1)
        read_bytes++;
    printf("stdin %d bytes\n", read_bytes);
    return 0;
}
