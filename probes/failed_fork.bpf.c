/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: the fork, vfork, clone and clone3 calls of followed processes that should have made a process and failed, and the limits at that
 * moment.
 */
#define CGROUPS 16

/* RLIMIT_NPROC counts the user's tasks: since 5.14 in 64 bits of the user namespace's ucounts ("Reimplement RLIMIT_NPROC on top of
 * ucounts"), before in 32 bits of struct user_struct. */
static __always_inline void read_task_limit(struct fork_failed_record *record, u64 task)
{
    u64 cred = 0, counts = 0;
    u32 few = 0;
    if (!HAS_TASK_LIMIT)
        return;
    READ(cred, task + task_cred);
    READ(counts, cred + cred_counts);
    READ(few, counts + counts_tasks);
    if (COUNTS_OF_USER)
        record->tasks = few;
    else
        READ(record->tasks, counts + counts_tasks);
    READ(record->tasks_max, signal_of(task) + signal_rlim + RLIMIT_NPROC * rlimit_sizeof);
}

/* The failed child was charged and uncharged, so a cgroup is full if it has no room for one more. */
static __always_inline void read_cgroup_limit(struct fork_failed_record *record, u64 task)
{
    u64 set = 0, css = 0;
    if (!HAS_PIDS_CGROUP)
        return;
    READ(set, task + task_cgroups);
    READ(css, set + css_set_subsys + 8 * PIDS_CGROUP_ID);
#pragma nounroll
    for (int i = 0; i < CGROUPS; i++) {
        s64 count = 0, limit = 0;
        if (!css)
            return;
        READ(count, css + pids_cgroup_counter);
        READ(limit, css + pids_cgroup_limit);
        if (limit > 0 && count + 1 > limit) {
            record->cgroup_pids = count;
            record->cgroup_pids_max = limit;
            return;
        }
        READ(css, css + css_parent);
    }
}

static __always_inline void read_namespace_limit(struct fork_failed_record *record, u64 task)
{
    u64 pid = thread_pid_of(task), ns = 0;
    u32 level = 0, allocated = 0;
    READ(level, pid + pid_level);
    READ(ns, pid + pid_numbers + level * upid_sizeof + upid_ns);
    READ(allocated, ns + pid_namespace_pid_allocated);
    record->ns_pids = allocated & 0x7fffffff;
    if (HAS_PID_NAMESPACE_PID_MAX)
        READ(record->ns_pids_max, ns + pid_namespace_pid_max);
}

/* Whether the call `number` of a followed process should have made a process and failed. Not: a clone that should have made a thread, and
 * a call that the kernel restarts after a signal. */
static __always_inline int has_failed(u64 number, s64 result)
{
    if (result >= 0 || (result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK))
        return 0;
    u64 regs = registers_in(bpf_get_current_task(), number), flags = 0;
    if (!regs || (number != SYSCALL_CLONE && number != SYSCALL_CLONE3))
        return 1;
    READ(flags, regs + REG_ARG0);
    if (number == SYSCALL_CLONE3)
        READ_USER(flags, flags);
    return !(flags & CLONE_THREAD);
}

/* The call work->number of current returned the error work->result. */
u64 shared_report_failed_fork(u64 slot)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task);
    struct work *work = work_of(slot);
    struct process *caller = followed.lookup(&signal);
    if (!work || !caller)
        return 0;
    struct fork_failed_record *record = ring.ringbuf_reserve(sizeof(struct fork_failed_record));
    if (!record) {
        lose(FORK_FAILED);
        return 0;
    }
    u64 number = work->number;
    __builtin_memset(record, 0, sizeof(*record));
    begin(&record->head, FORK_FAILED, caller, work);
    name_thread(&record->head.by, task);
    read_task_limit(record, task);
    read_cgroup_limit(record, task);
    read_namespace_limit(record, task);
    record->error = -work->result;
    record->call = number == SYSCALL_CLONE    ? CALL_CLONE
                   : number == SYSCALL_CLONE3 ? CALL_CLONE3
                   : number == SYSCALL_FORK   ? CALL_FORK
                                              : CALL_VFORK;
    ring.ringbuf_submit(record, NO_WAKEUP);
    return 0;
}
