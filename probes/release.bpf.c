/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: that a process is released, for good. Cannot see: who released it (wait.bpf.c can, when it was a system call).
 */

/* (namespace, number) -> signal_struct of the parent of one that was released by nobody who was seen: the call that did it may not have
 * come back yet, on a machine where that takes longer than the kernel's grace period. Full: the least recently used goes, and that
 * call is no reap. */
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

/* `dead`, the parent of `child`, leaves it to the heir of its children. */
static __always_inline void hand_on(struct process *child, struct process *dead)
{
    asm volatile("" : "+r"(dead)); /* else it is added to before it is looked at, which the verifier forbids */
    child->handed_ns = dead->exit_ns;
    child->heir_name = dead->adopter_name;
    child->heir_disposition = dead->adopter_disposition;
}

/* It was released and no wait of ours took it: its parent ignores SIGCHLD (autoreap, at the notification), perhaps only since the exit,
 * if nobody was told; or its parent died and left the zombie to an adopter that does (autoreap, at that parent's own notification,
 * for the adopter itself gets none); or its PID namespace died; or somebody waited whose system calls raise no event. */
static __always_inline void report_release(struct process *process)
{
    u64 parent_signal = process->parent, notified_ns = process->told_ns ? process->told_ns : process->exit_ns;
    struct process *parent = followed.lookup(&parent_signal);
    int parent_lives = 0;
    int handed = process->handed_ns != 0;
    int nobody_told = process->exit_ns && !process->zombie_ns && process->exit_signal == SIGCHLD; /* so somebody ignores SIGCHLD */
    if (parent && parent->start_ns == process->parent_name.start_ns) { /* else it has gone, and the address has a new owner */
        parent_lives = !parent->exit_ns;
        if (!parent_lives) {
            hand_on(process, parent);
            process->handed_ns = parent->zombie_ns ? parent->zombie_ns : parent->exit_ns;
        }
    }
    int dying_init = process->parent_is_init && !parent_lives; /* it cannot go before its children */
    if (nobody_told && !ignores(process->disposition) && !(handed && ignores(process->heir_disposition))) {
        if (handed) /* a dying parent cannot have begun to */
            process->heir_disposition = IGNORED;
        else
            process->disposition = IGNORED;
    }
    /* then the parent of its exit had no say any more */
    int left_amid_exit = handed && !process->zombie_ns && ignores(process->heir_disposition);
    if (!dying_init && !left_amid_exit && ignores(process->disposition) && process->exit_signal == SIGCHLD) {
        report_autoreap(process, notified_ns, &process->parent_name, process->disposition);
        return;
    }
    if (!dying_init && process->handed_ns && ignores(process->heir_disposition)) {
        u64 left_ns = process->handed_ns > notified_ns ? process->handed_ns : notified_ns;
        report_autoreap(process, left_ns, &process->heir_name, process->heir_disposition);
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
    record->head.by = process->handed_ns ? process->heir_name : process->parent_name;
    record->zombie_ns = process->zombie_ns;
    record->empty_waits = process->empty_waits;
    record->call = dying_init ? KERNEL : UNSEEN;
    record->target = NONE;
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* The processes of which a thread has reported the end, where the kernel does not say which thread is the last (exit.bpf.c). Removed with
 * the process. Full: the least recently used goes, long after its last thread. */
BPF_TABLE("lru_hash", u64, u8, ended, 4096);

static __always_inline void forget(u64 signal, struct process *process)
{
#pragma unroll
    for (int i = 0; i < NS_LEVELS; i++) {
        struct number number = process->numbers[i];
        struct owners *known = numbers.lookup(&number);
        if (known && known->now == signal)
            numbers.delete(&number);
        struct owners *taken = takers.lookup(&number); /* after `numbers` */
        if (taken && taken->now == signal)
            takers.delete(&number);
        known = owners_of(&number);
        if (known && known->before == signal)
            known->before = 0;
    }
    if (!EXIT_HAS_GROUP_DEAD)
        ended.delete(&signal);
    followed.delete(&signal);
}

/* The followed process with this signal_struct is gone. */
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

/* Runs from an RCU callback, 5 to 45 ms after the release; current is a bystander. A non-leader that took the leader's place in an
 * exec leaves the old leader's task, which now has another pid than tgid, to be freed here. */
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
