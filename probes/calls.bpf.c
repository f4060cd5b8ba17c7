/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The tracepoints of single system calls, except mmap. They share one program, so that the stack walk is verified once.
 * While one of them is attached, every system call of every process takes the kernel's slow path; only these calls run the program.
 */

/* Whether the result of a call of current is of interest. `process` 0: current is not followed. */
static __always_inline int is_of_interest(struct process *process, u64 number, s64 result)
{
    if (number == SYSCALL_WAIT4 || number == SYSCALL_WAITID)
        return process || result > 0 || (result == 0 && number == SYSCALL_WAITID);
    return process && (number == SYSCALL_CONNECT ? !result : has_failed(number, result));
}

/* current returns from a wait, a fork, a clone or a connect, or enters exit_group. There the other threads are still alive; in
 * sched_process_exit the last of them could report the end of the process while this one still walks its stack. */
int on_call(struct call_context *context)
{
    if (is_for_another_copy())
        return 0;
    u64 number = context->number, signal = signal_of(bpf_get_current_task());
    struct process *process = process_of_current(signal);
    int waits = number == SYSCALL_WAIT4 || number == SYSCALL_WAITID, connects = number == SYSCALL_CONNECT;
    if (number == SYSCALL_EXIT_GROUP) {
        if (process)
            take_exit_stack(process);
        return 0;
    }
    if (!is_of_interest(process, number, context->result))
        return 0;
    u64 slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        lose(connects ? REQUEST : waits ? WAIT : FORK_FAILED);
        return 0;
    }
    if (connects && !is_request(slot)) {
        give_back(work);
        return 0;
    }
    work->most = STACK_FRAMES;
    if (process)
        take_stack(slot);
    else
        no_stack(work);
    work->number = number;
    work->result = context->result;
    if (connects)
        report_request(slot);
    else if (waits)
        report_waited(slot);
    else
        report_failed_fork(slot);
    give_back(work);
    return 0;
}
