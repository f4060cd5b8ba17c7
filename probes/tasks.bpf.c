/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Finds the existing processes when a recording attaches: a BPF iterator, which user space runs over all tasks until a pass finds
 * nothing new. Meanwhile task_newtask sees the forks of followed processes, so no child is missed and none is taken twice: a task that
 * is still inside its fork (TASK_NEW) is left to that probe; if the probe ran before the parent was followed, to the next pass.
 * Cannot see: descendants whose parents died before the recording, and tasks outside the recorder's PID namespace.
 */
#define TASK_NEW 0x800
#define EXIT_DEAD 0x10

/* Number in the recorder's PID namespace -> start of the tick in which the process started. It and its descendants are to be followed;
 * 0: it is never followed. Set by user space; removed by it, and here as soon as the process is followed, since numbers are reused. */
BPF_HASH(wanted, u32, u64, WANTED);

/* Number -> the libpython that this process has mapped. User space sets and removes it. */
BPF_HASH(mapped, u32, struct mapping, MAPPED);

static __always_inline void note_library(struct process *process)
{
    u32 pid = process->pid;
    struct mapping *found = mapped.lookup(&pid);
    if (!found || process->library)
        return;
    process->library_start = found->start;
    process->library = found->library;
    process->not_python = 0;
}

/* Report the exit of a followed process that is a zombie since before it was followed. Returns 0 if it is exiting right now: then it is
 * not known yet whether the exit probe reports it. */
static __always_inline int report_if_zombie(struct process *process, u64 task)
{
    u64 signal = signal_of(task), parent = 0;
    u32 live = 0, exit_state = 0;
    READ(exit_state, task + task_exit_state);
    READ(live, signal + signal_live);
    if (live || process->exit_ns)
        return 1;
    if (!exit_state)
        return 0;
    READ(parent, task + task_real_parent);
    note_parent(process, parent);
    process->exit_ns = process->zombie_ns = bpf_ktime_get_boot_ns();
    report_exit(process, task, task, signal, AT_THE_LATEST);
    return 1;
}

/* current is the recorder, under rcu_read_lock: a task that is released now is freed later. ctx: the iterator's meta, the task or 0. */
int on_task(u64 *ctx)
{
    u64 task = 0, leader = 0, parent = 0;
    u32 state = 0, exit_state = 0, pid = 0;
    int zero = 0;
    struct settings *known = settings.lookup(&zero);
    struct attaching *pass = attaching_now();
    READ(task, ctx + 1);
    if (!task || !known || !pass)
        return 0;
    READ(leader, task + task_group_leader);
    u64 number = thread_pid_of(task), signal = signal_of(task);
    if (leader != task || !number) /* a thread; or a process that was released */
        return 0;
    READ(state, task + task_state); /* before the look-up: a task that is not TASK_NEW has passed task_newtask, which may follow it */
    struct process *process = followed.lookup(&signal);
    if (!process) {
        READ(known->level, thread_pid_of(bpf_get_current_task()) + pid_level);
        pid = number_at(number, known->level);
        u64 *choice = wanted.lookup(&pid);
        READ(parent, task + task_real_parent);
        u64 parent_signal = signal_of(parent);
        READ(exit_state, task + task_exit_state);
        int is_never = choice && !*choice, is_named = choice && began_in(task, *choice);
        if (exit_state == EXIT_DEAD || is_never || !(is_named || followed.lookup(&parent_signal)))
            return 0;
        if (state & TASK_NEW) {
            pass->pending++;
            return 0;
        }
        u64 slot = claim();
        struct work *work = work_of(slot);
        if (slot == SLOTS || !work) {
            pass->pending++;
            return 0;
        }
        u64 is_new = join_in(work, slot, task, ATTACHED);
        give_back(work);
        process = followed.lookup(&signal);
        if (!is_new || !process)
            return 0;
        pass->added++;
        if (choice)
            wanted.delete(&pid);
        u64 program = process->program;
        if (STACKS && program && !interpreters.lookup(&program))
            ask_about(program, process->pid, 0);
    }
    note_library(process);
    if (!report_if_zombie(process, task))
        pass->pending++;
    return 0;
}
