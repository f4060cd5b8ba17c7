/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: every process that a followed process makes, by whatever call. Begins to follow processes: those, and existing ones.
 */

#define NEWBORNS 64

static __always_inline struct image begun(u64 signal, u64 since_ns)
{
    return (struct image){.signal = signal, .since_ns = since_ns, .until_ns = FOR_EVER};
}

/* Store the program of this mm. Its mappings are not known yet. */
static __always_inline void note_program(struct process *process, u64 signal, u64 mm)
{
    u64 file = 0;
    process->images[0] = begun(signal, bpf_ktime_get_boot_ns());
    process->images[1].signal = process->images[2].signal = 0;
    READ(file, mm + mm_exe_file);
    process->program = file_key(file);
    READ(process->program_code, mm + mm_start_code);
    process->library = process->library_start = 0;
    process->not_python = 0;
}

/* Fill in work->fresh and the table of numbers for `task`, which is followed from now on. */
static __always_inline void note_numbers(struct work *work, u64 task, u64 signal)
{
    struct process *fresh = &work->fresh;
    u64 pid = thread_pid_of(task);
    u32 level = 0;
    __builtin_memset(fresh, 0, sizeof(*fresh));
    READ(level, pid + pid_level);
#pragma nounroll
    for (u32 up = 0; up < NS_LEVELS; up++) {
        if (up > level)
            break;
        u64 upid = pid + pid_numbers + (level - up) * upid_sizeof, ns = 0;
        struct number number = {};
        READ(number.nr, upid + upid_nr);
        READ(ns, upid + upid_ns);
        READ(number.ns, ns + pid_namespace_ns + ns_common_inum);
        struct owners owners = {.now = signal}, *former = owners_of(&number);
        if (former && former->now != signal) {
            owners.before = former->now;
            new_owners.update(&number, &owners); /* before `numbers` */
        }
        if (numbers.update(&number, &owners))
            lose(NUMBERS_UNKNOWN);
        fresh->numbers[up & (NS_LEVELS - 1)] = number;
    }
    fresh->pid = number_at(pid, recorder_level());
    fresh->start_ns = start_of(task);
    READ(fresh->exit_signal, task + task_exit_signal);
    fresh->disposition = NONE;
    fresh->exit_from = NONE;
    fresh->exit_stack_status = NONE;
    fresh->switches = FOR_EVER;
}

static __always_inline void report_fork(u64 task, struct process *child, u64 by, u64 flags, u8 origin, u8 call, struct work *work)
{
    struct fork_record *record = ring.ringbuf_reserve(sizeof(struct fork_record));
    if (!record) {
        lose(FORK);
        return;
    }
    u64 parent = 0;
    begin(&record->head, FORK, child, work);
    if (by)
        name_thread(&record->head.by, by);
    else
        nobody(&record->head.by);
    READ(parent, task + task_real_parent);
    name_process(&record->parent, parent);
    record->flags = flags;
    record->cgroup_id = cgroup_of(task);
    record->exit_signal = child->exit_signal;
#pragma unroll
    for (int i = 0; i < NS_LEVELS; i++)
        record->ns_pids[NS_LEVELS - 1 - i] = child->numbers[i].nr;
    record->origin = origin;
    record->call = call;
    bpf_probe_read_kernel(record->comm, COMM_BYTES, (void *)(task + task_comm));
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* Follow the task work->number, whose program is read from its mm. work->result is its origin: the target at its exec, or an existing
 * process or zombie. Returns whether this call began to follow it. */
u64 shared_join(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    u64 task = work->number, signal = signal_of(task), mm = 0;
    note_numbers(work, task, signal);
    READ(mm, task + task_mm);
    note_program(&work->fresh, signal, mm);
    u64 failed = followed.insert(&signal, &work->fresh); /* the table is full, or another processor was faster */
    struct process *process = followed.lookup(&signal);
    if (!process)
        lose(PROCESSES_UNFOLLOWED);
    if (!process || failed)
        return 0;
    report_fork(task, process, 0, 0, work->result, NONE, 0);
    return 1;
}

static __always_inline u64 join_in(struct work *work, u64 slot, u64 task, u8 origin)
{
    work->number = task;
    work->result = origin;
    return join(slot);
}

static __always_inline u8 forking_call(u64 task)
{
    u64 regs = registers_in(task, 0);
    u32 nr = 0;
    if (!regs)
        return NONE;
    READ(nr, regs + REG_NR);
    return nr == SYSCALL_CLONE    ? CALL_CLONE
           : nr == SYSCALL_CLONE3 ? CALL_CLONE3
           : nr == SYSCALL_FORK   ? CALL_FORK
                                  : CALL_VFORK;
}

/* Follow the task work->number, which current has made with the flags work->result. It runs the program of current. */
u64 shared_follow_child(u64 slot)
{
    struct work *work = work_of(slot);
    if (!work)
        return 0;
    u64 current = bpf_get_current_task(), child = work->number, own = signal_of(current), signal = signal_of(child);
    struct process *forker = followed.lookup(&own);
    if (!forker)
        return 0;
    note_numbers(work, child, signal);
    struct process *fresh = &work->fresh;
    fresh->program = forker->program;
    fresh->program_code = forker->program_code;
    fresh->library = forker->library;
    fresh->library_start = forker->library_start;
    fresh->not_python = forker->not_python;
    fresh->images[0] = begun(signal, fresh->start_ns);
    fresh->images[1] = forker->images[0];
    fresh->images[1].until_ns = fresh->start_ns;
    fresh->images[2] = forker->images[1];
    followed.update(&signal, fresh);
    struct process *process = followed.lookup(&signal);
    if (process)
        report_fork(child, process, current, work->result, FORKED, forking_call(current), work);
    else
        lose(PROCESSES_UNFOLLOWED);
    return 0;
}

/* The child that current has made, of which the event has but the number: among the last children of its parent, which with CLONE_PARENT
 * is that of current. Orphans may have come behind it. 0: the parent has died, or got more of them. */
static __always_inline u64 find_newborn(union context *context, u64 flags)
{
    u64 parent = bpf_get_current_task(), entry = 0;
    u32 wanted = 0, tid = 0;
    READ(wanted, (u64)context + fork_event_pid);
    if (flags & CLONE_PARENT)
        READ(parent, parent + task_real_parent);
    entry = parent + task_children;
#pragma nounroll
    for (int i = 0; i < NEWBORNS; i++) {
        READ(entry, entry + sizeof(void *)); /* the one before */
        READ(tid, entry - task_sibling + task_pid);
        if (tid == wanted)
            return entry - task_sibling;
    }
    return 0;
}

/* current is the forking thread; the child exists and has not run. Covers fork, vfork, clone, clone3 and posix_spawn.
 * The child's signal_struct is new. A process still known by that address was freed without sched_process_free: on some machines no
 * probe runs while certain processes do (forktrace was developed on one: those of its PID 1). Where one of these made the child, no
 * probe ran then; that is noticed as soon as the child acts (process_of_current). */
int on_fork(union context *context)
{
    u64 flags = 0, signal = signal_of(bpf_get_current_task());
    if (RAW_IS_PREEMPTED)
        READ(flags, (u64)context + fork_event_clone_flags);
    else
        flags = context->args[1];
    if (flags & CLONE_THREAD)
        return 0;
    u64 child = RAW_IS_PREEMPTED ? find_newborn(context, flags) : context->args[0], own = signal_of(child);
    if (followed.lookup(&own))
        release(own);
    if (!process_of_current(signal))
        return 0;
    u64 slot = child ? claim() : SLOTS;
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        lose(FORK);
        lose(PROCESSES_UNFOLLOWED);
        return 0;
    }
    work->most = STACK_FRAMES;
    take_stack(slot);
    work->number = child;
    work->result = flags;
    follow_child(slot);
    give_back(work);
    return 0;
}
