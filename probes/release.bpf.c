/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: that a process is released. Cannot see: who released it (wait.bpf.c does, if it was a system call).
 */

/* (namespace, number) of a process that was released unseen -> signal_struct of its parent. The wait call that released it may not have
 * returned yet, where that takes longer than an RCU grace period.
 * Map full: the least recently used entry is dropped; its wait call is then no reap. */
BPF_TABLE("lru_hash", struct number, u64, released, 1024);

static __always_inline int ignores(u8 disposition)
{
    return disposition == IGNORED || disposition == NOCLDWAIT;
}

static __always_inline void report_autoreap(struct process *process, u64 time_ns, struct who *parent, u8 disposition)
{
    struct autoreap_record *record = ring.ringbuf_reserve(sizeof(struct autoreap_record));
    if (!record) {
        lose(AUTOREAP);
        return;
    }
    begin(&record->head, AUTOREAP, process, 0);
    record->head.time_ns = time_ns;
    nobody(&record->head.by);
    record->parent = *parent;
    record->zombie_ns = process->zombie_ns;
    record->empty_waits = process->empty_waits;
    record->disposition = disposition;
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* `dead`, the parent of `child`, has died: the child goes to the adopter. */
static __always_inline void reparent(struct process *child, struct process *dead)
{
    asm volatile("" : "+r"(dead)); /* else the compiler adds to it before the check for 0, which the verifier rejects */
    child->reparented_ns = dead->exit_ns;
    child->new_parent_name = dead->adopter_name;
    child->new_parent_disposition = dead->adopter_disposition;
}

/* Report a release that no followed wait call explains.
 *     the parent ignores SIGCHLD         autoreap by the parent, at its notification; if none came, it began to ignore it since the exit
 *     the parent died, and the adopter   autoreap by the adopter, at the notification of the old parent's own parent: the adopter
 *       ignores SIGCHLD                  gets none
 *     the init of the namespace died     reap, call `kernel`
 *     otherwise                          reap, call `unseen`: the waiter's system calls raise no event */
static __always_inline void report_release(struct process *process)
{
    u64 parent_signal = process->parent, notified_ns = process->notified_ns ? process->notified_ns : process->exit_ns;
    struct process *parent = followed.lookup(&parent_signal);
    int parent_lives = 0;
    int was_reparented = process->reparented_ns != 0;
    int is_ignored = process->exit_ns && !process->zombie_ns && process->exit_signal == SIGCHLD; /* nobody was notified */
    if (parent && parent->start_ns == process->parent_name.start_ns) { /* else it has gone, and the address has a new owner */
        parent_lives = !parent->exit_ns;
        if (!parent_lives) {
            reparent(process, parent);
            process->reparented_ns = parent->zombie_ns ? parent->zombie_ns : parent->exit_ns;
        }
    }
    int dying_init = process->parent_is_init && !parent_lives; /* an init cannot go before its children */
    if (is_ignored && !ignores(process->disposition) && !(was_reparented && ignores(process->new_parent_disposition))) {
        if (was_reparented) /* a dying parent cannot have begun to ignore it */
            process->new_parent_disposition = IGNORED;
        else
            process->disposition = IGNORED;
    }
    /* reparented before anybody was notified: the old parent's disposition did not matter any more */
    int adopter_decides = was_reparented && !process->zombie_ns && ignores(process->new_parent_disposition);
    if (!dying_init && !adopter_decides && ignores(process->disposition) && process->exit_signal == SIGCHLD) {
        report_autoreap(process, notified_ns, &process->parent_name, process->disposition);
        return;
    }
    if (!dying_init && process->reparented_ns && ignores(process->new_parent_disposition)) {
        u64 time_ns = process->reparented_ns > notified_ns ? process->reparented_ns : notified_ns;
        report_autoreap(process, time_ns, &process->new_parent_name, process->new_parent_disposition);
        return;
    }
#pragma unroll
    for (int i = 0; i < NS_LEVELS; i++)
        if (process->numbers[i].nr)
            released.update(&process->numbers[i], &parent_signal);
    struct wait_record *record = ring.ringbuf_reserve(sizeof(struct wait_record));
    if (!record) {
        lose(REAP);
        return;
    }
    __builtin_memset(record, 0, sizeof(*record));
    begin(&record->head, REAP, process, 0);
    record->head.by = process->reparented_ns ? process->new_parent_name : process->parent_name;
    record->zombie_ns = process->zombie_ns;
    record->empty_waits = process->empty_waits;
    record->call = dying_init ? KERNEL : UNSEEN;
    record->target = NONE;
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* signal_structs of processes whose end a thread has reported, for kernels that do not say which thread is the last (exit.bpf.c).
 * Removed with the process. Map full: the least recently used entry is dropped, long after its last thread. */
BPF_TABLE("lru_hash", u64, u8, ended, 4096);

static __always_inline void forget(u64 signal, struct process *process)
{
#pragma unroll
    for (int i = 0; i < NS_LEVELS; i++) {
        struct number number = process->numbers[i];
        struct owners *known = numbers.lookup(&number);
        if (known && known->now == signal)
            numbers.delete(&number);
        struct owners *taken = new_owners.lookup(&number); /* after `numbers` */
        if (taken && taken->now == signal)
            new_owners.delete(&number);
        known = owners_of(&number);
        if (known && known->before == signal)
            known->before = 0;
    }
    if (!EXIT_HAS_GROUP_DEAD)
        ended.delete(&signal);
    followed.delete(&signal);
}

/* The followed process with this signal_struct is released: report that unless a wait did, and forget it. */
u64 shared_release(u64 signal)
{
    struct process *process = followed.lookup(&signal);
    if (!process)
        return 0;
    if (!process->reaped)
        report_release(process);
    forget(signal, process);
    return 0;
}

/* The followed process of current, which has this signal_struct; 0: it is not followed. A process that is known by it and has exited was
 * another, and was freed without sched_process_free. */
static __always_inline struct process *process_of_current(u64 signal)
{
    struct process *process = followed.lookup(&signal);
    if (process && process->exit_ns) {
        release(signal);
        return 0;
    }
    return process;
}

/* Runs in an RCU callback, 5 to 45 ms after the release; current is a bystander. When a non-leader calls exec, the task of the old
 * leader is freed here, too: its pid then differs from its tgid. */
int on_free(union context *context)
{
    u64 task = context->args[0], signal = signal_of(task);
    u32 pid = 0, tgid = 0;
    if (!followed.lookup(&signal))
        return 0;
    READ(pid, task + task_pid);
    READ(tgid, task + task_tgid);
    if (pid == tgid)
        release(signal);
    return 0;
}

/* Run by the recorder, not at a tracepoint: the process with this signal_struct is not in /proc any more. On some machines no probe runs
 * while certain processes do, and the callback above can interrupt one of those. */
int on_gone(union context *context)
{
    release(context->args[0]);
    return 0;
}
