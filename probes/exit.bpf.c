/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Sees: the exit of a followed process, with the stack of the thread that ends it; and who adopts the children of a dying process.
 * Cannot see: the exit of a process that is not followed yet.
 */

static __always_inline int is_alive(u64 task)
{
    u32 live = 0;
    READ(live, signal_of(task) + signal_live);
    return live != 0;
}

static __always_inline u8 signal_bit(u64 signal, u64 offset, u64 bit)
{
    u8 byte = 0;
    READ(byte, signal + offset);
    return (byte >> (bit & 7)) & 1;
}

#define ANCESTORS 64
#define CHILDREN_A_CALL 64 /* two loops, so that each is short for the verifier */
#define CHILDREN_CALLS 64

/* The adopter: the task that inherits the children of the dying process of `task` (the kernel's find_new_reaper). It is the nearest
 * living ancestor in its PID namespace that is a subreaper, else the namespace's init. 0: the dying process is that init.
 * Decided here because the ancestors can be gone a moment later. */
u64 shared_adopter_of(u64 task)
{
    u64 signal = signal_of(task), pid = thread_pid_of(task), ns = 0, init = 0, ancestor = 0, next = 0;
    u32 level = 0, ancestor_level = 0;
    READ(level, pid + pid_level);
    if (signal_bit(signal, signal_has_child_subreaper, signal_has_child_subreaper_bit)) {
        READ(ancestor, task + task_real_parent);
#pragma nounroll
        for (int i = 0; i < ANCESTORS; i++) {
            u32 global_tid = 0;
            READ(global_tid, ancestor + task_pid);
            READ(ancestor_level, thread_pid_of(ancestor) + pid_level);
            if (global_tid == 0 || ancestor_level != level)
                break;
            if (signal_bit(signal_of(ancestor), signal_is_child_subreaper, signal_is_child_subreaper_bit) && is_alive(ancestor))
                return ancestor;
            next = 0;
            READ(next, ancestor + task_real_parent);
            ancestor = next;
        }
    }
    READ(ns, pid + pid_numbers + level * upid_sizeof + upid_ns);
    READ(init, ns + pid_namespace_child_reaper);
    return signal_of(init) == signal ? 0 : init;
}

/* Add the CPU times of a kernel object, which are at these offsets. */
static __always_inline void add_times(struct exit_record *record, u64 object, u64 utime, u64 stime, u64 runtime)
{
    u64 value = 0;
    READ(value, object + utime);
    record->utime_ticks_ns += value;
    READ(value, object + stime);
    record->stime_ticks_ns += value;
    READ(value, object + runtime);
    record->runtime_ns += value;
}

/* Report an exit. `task` is the last thread; of a zombie from before the recording it is the leader.
 * CPU times: the signal_struct has the sum of the released threads, without the last one and a leader that died before it. */
static __always_inline void report_exit(struct process *process, u64 task, u64 leader, u64 signal, u8 moment)
{
    u32 flags = 0;
    struct exit_record *record = ring.ringbuf_reserve(sizeof(struct exit_record));
    if (!record) {
        lose(EXIT);
        return;
    }
    begin(&record->head, EXIT, process, 0);
    record->head.time_ns = process->exit_ns;
    record->head.stack = process->exit_stack;
    record->head.stack_status = process->exit_stack_status;
    record->exit_from = process->exit_from;
    record->moment = moment;
    if (moment == AS_SEEN)
        name_thread(&record->head.by, task);
    else
        nobody(&record->head.by);
    record->parent = process->parent_name;
    record->adopter = process->adopter_name;
    record->utime_ticks_ns = record->stime_ticks_ns = record->runtime_ns = 0;
    add_times(record, signal, signal_utime, signal_stime, signal_sum_sched_runtime);
    add_times(record, task, task_utime, task_stime, task_sum_exec_runtime);
    if (leader != task)
        add_times(record, leader, task_utime, task_stime, task_sum_exec_runtime);
    READ(record->max_rss_pages, signal + signal_maxrss);
    READ(flags, signal + signal_flags);
    if (flags & SIGNAL_GROUP_EXIT)
        READ(record->status, signal + signal_group_exit_code);
    else
        READ(record->status, leader + task_exit_code);
    record->exit_signal = process->exit_signal;
    record->disposition = process->disposition;
    bpf_probe_read_kernel(record->comm, COMM_BYTES, (void *)(task + task_comm));
    ring.ringbuf_submit(record, NO_WAKEUP);
}

/* Whose code called exit_group, by the return addresses on the user's stack:
 *     os._exit      the innermost one is in the interpreter (libc's _exit pushes nothing)
 *     SystemExit    one further out is in Py_Exit, which calls exit(3)
 * 256 bytes are always readable. arm64 has the innermost return address in a register. */
static __always_inline u8 exit_from(u64 regs, struct process *process, struct work *work)
{
    u64 pointer = 0, caller = 0, *words = work->block;
    struct interpreter *python = interpreter_of(process);
    if (!python || !python->version)
        return NONE;
    u8 from = python->returns ? RETURNED : OTHER_CODE;
    READ(pointer, regs + REG_SP);
    if (read_user(words, 256, (void *)pointer))
        return NONE;
    u64 library = process->library;
    struct interpreter *mapped = interpreters.lookup(&library);
    u64 base = mapped && mapped->version ? process->library_start - python->first_page : process->program_code - python->first_code;
    caller = words[0];
    if (HAS_LINK_REGISTER)
        READ(caller, regs + REG_LINK);
    if (caller - base >= python->text && caller - base < python->text_end)
        return INTERPRETER;
#pragma nounroll
    for (int i = 0; i < 32; i++)
        if (words[i] - base > python->py_exit && words[i] - base <= python->py_exit_end)
            from = PY_EXIT;
    return from;
}

/* current is dying, nothing of it is torn down yet. Keep its stack if it says more about the end of the process than the stack kept
 * so far: 2 inside exit_group, 1 of a thread that dies with its group. */
u64 shared_keep_exit_stack(u64 slot)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task), regs = registers_in(task, SYSCALL_EXIT_GROUP);
    struct work *work = work_of(slot);
    struct process *process = followed.lookup(&signal);
    u32 flags = 0;
    if (!work || !process)
        return 0;
    READ(flags, signal + signal_flags);
    u8 rank = regs ? 2 : flags & SIGNAL_GROUP_EXIT ? 1 : 0;
    if (process->exit_ns || rank <= process->exit_known)
        return 0;
    process->exit_known = rank;
    process->exit_from = regs ? exit_from(regs, process, work) : NONE;
    work->most = STACK_FRAMES;
    take_stack(slot);
    process->exit_stack = work->stack;
    process->exit_stack_status = work->stack_status;
    return 0;
}

/* The process of `task` ends; this is its last thread. */
u64 shared_note_end(u64 task)
{
    u64 signal = signal_of(task), leader = 0, parent = 0, adopter = adopter_of(task);
    struct process *process = followed.lookup(&signal);
    if (!process || process->exit_ns)
        return 0;
    READ(leader, task + task_group_leader);
    READ(parent, leader + task_real_parent);
    READ(process->exit_signal, leader + task_exit_signal);
    note_parent(process, parent);
    nobody(&process->adopter_name);
    if (adopter) {
        process->adopter_disposition = disposition_of(adopter, SIGCHLD);
        name_process(&process->adopter_name, adopter);
    }
    process->exit_ns = bpf_ktime_get_boot_ns();
    parent = process->parent;
    struct process *dead = followed.lookup(&parent);
    if (dead && dead->exit_ns) /* the parent has died, but not reparented its children yet */
        reparent(process, dead);
    report_exit(process, task, leader, signal, AS_SEEN);
    return 0;
}

/* Whether a followed process adopts the children of the dying process of `task`. */
static __always_inline int adopter_is_followed(u64 task)
{
    u64 adopter = adopter_of(task), signal = adopter ? signal_of(adopter) : 0;
    struct process *process = followed.lookup(&signal);
    return process && !process->exit_ns; /* one that has exited was another (process_of_current) */
}

/* Take the child at work->frame in the list of children of the dying task work->own. Returns whether there was one.
 *     not followed yet   it is followed from now on, if work->image is an origin; its earlier life is not recorded
 *     exited             it gets its adopter, if the dying process is followed: an adopter that ignores SIGCHLD is not notified */
u64 shared_pass_child(u64 slot)
{
    struct work *work = work_of(slot);
    struct attaching *pass = attaching_now();
    if (!work || !pass)
        return 0;
    u64 task = work->own, entry = work->frame, signal = signal_of(task), next = 0;
    u8 origin = work->image;
    if (entry == task + task_children)
        return 0;
    READ(next, entry);
    u64 child = entry - task_sibling, signal_of_child = signal_of(child);
    struct process *process = followed.lookup(&signal_of_child), *dead = followed.lookup(&signal);
    if (process && process->exit_ns && dead) {
        reparent(process, dead);
        if (!process->zombie_ns)
            process->disposition = disposition_of(task, SIGCHLD); /* final: a dying process does not change it */
    }
    if (!process && origin != NONE) {
        join_in(work, slot, child, origin);
        pass->added++; /* the next pass finds out whether it is a zombie */
    }
    work->frame = next;
    return 1;
}

u64 shared_pass_children(u64 slot)
{
#pragma nounroll
    for (int i = 0; i < CHILDREN_A_CALL; i++)
        if (!pass_child(slot))
            return 0;
    return 1;
}

static __always_inline void pass_all_children(u64 task, u8 origin)
{
    u64 entry = 0, slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        lose(CHILDREN_UNADOPTED);
        return;
    }
    READ(entry, task + task_children);
    work->own = task;
    work->frame = entry;
    work->image = origin;
    int are_more = 1;
#pragma nounroll
    for (int i = 0; i < CHILDREN_CALLS && are_more; i++)
        are_more = pass_children(slot);
    if (are_more && origin != NONE)
        lose(CHILDREN_UNADOPTED);
    give_back(work);
}

static __always_inline void take_exit_stack(struct process *process)
{
    u64 slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        process->exit_stack_status = STACK_LOST;
        return;
    }
    keep_exit_stack(slot);
    give_back(work);
}

/* current is the dying thread.
 * Kernels whose tracepoint has group_dead: it says whether this is the last thread, and the thread still has its mm, for the stack of a
 * crash. Older kernels: several threads can find that none is alive; the first one reports.
 * Children that are not followed yet: a followed process can adopt those of one that is not; while a recording attaches, a followed
 * process can have some. */
int on_exit(union context *context)
{
    u64 task = bpf_get_current_task(), signal = signal_of(task);
    struct process *process = followed.lookup(&signal);
    u32 live = 0;
    u8 one = 1, group_dead = 0;
    if (EXIT_HAS_GROUP_DEAD) {
        if (process && STACKS)
            take_exit_stack(process);
        if (RAW_IS_PREEMPTED)
            READ(group_dead, (u64)context + exit_event_group_dead);
        else
            group_dead = context->args[1];
        live = !(group_dead & 1);
    } else {
        READ(live, signal + signal_live);
    }
    if (live || (process && process->exit_ns))
        return 0;
    if (process) {
        if (!EXIT_HAS_GROUP_DEAD && ended.insert(&signal, &one))
            return 0;
        note_end(task);
        pass_all_children(task, is_attaching() ? ATTACHED : NONE);
        return 0;
    }
    if (is_target(task)) /* its number can be reused soon */
        forget_target();
    if (adopter_is_followed(task))
        pass_all_children(task, ADOPTED);
    return 0;
}
