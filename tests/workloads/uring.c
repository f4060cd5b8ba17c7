/* Reaps 3 children through io_uring's waitid (operation 50, Linux 6.7 and later), without a wait system call. */
#include "witness.h"
#include <linux/io_uring.h>

#define OP_WAITID 50

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

static char *map(int ring, size_t size, off_t offset)
{
    char *place = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    must(place != MAP_FAILED, "mmap");
    return place;
}

/* In `struct io_uring_sqe`: len is the id type, fd the id, file_index the options, addr2 the siginfo. */
static void waitids(const char *name)
{
    struct io_uring_params params = {0};
    int ring = syscall(SYS_io_uring_setup, 4, &params);
    must(ring >= 0, "io_uring_setup");
    char *submit = map(ring, params.sq_off.array + params.sq_entries * 4, IORING_OFF_SQ_RING);
    char *complete = map(ring, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    struct io_uring_sqe *entries = (void *)map(ring, params.sq_entries * sizeof *entries, IORING_OFF_SQES);
    for (int i = 0; i < 3; i++) {
        siginfo_t info = {0};
        pid_t pid = child(70 + i, NULL);
        if (i != 1)
            until_zombie(pid);
        unsigned *tail = (void *)(submit + params.sq_off.tail), slot = *tail & (params.sq_entries - 1);
        entries[slot] = (struct io_uring_sqe){.opcode = OP_WAITID, .fd = pid, .len = P_PID, .addr2 = (uintptr_t)&info, .file_index = WEXITED};
        ((unsigned *)(submit + params.sq_off.array))[slot] = slot;
        __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
        must(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1, "io_uring_enter");
        unsigned *head = (void *)(complete + params.cq_off.head), mask = *(unsigned *)(complete + params.cq_off.ring_mask);
        struct io_uring_cqe *result = (struct io_uring_cqe *)(complete + params.cq_off.cqes) + (*head & mask);
        if (result->res == -EINVAL) { /* the kernel does not know this operation */
            must(wait4(pid, NULL, 0, NULL) == pid, "wait4");
            return;
        }
        errno = -result->res;
        must(result->res == 0 && info.si_pid == pid, "waitid");
        __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
        must(wait4(pid, NULL, 0, NULL) == -1 && errno == ECHILD, "gone");
        say("'case': '%s', 'pid': %d, 'ppid': %d, 'exit_code': %d, 'reaper_pid': %d, 'reap_call': 'io_uring'", name, pid, getpid(),
            info.si_status, getpid());
    }
}

int main(void)
{
    in_process("io_uring", waitids);
    return 0;
}
