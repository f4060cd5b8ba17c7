/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The tracepoints of single system calls, all but mmap: one program, so that the walk of the stack is verified once for all of them. Where
 * there is one, every call of every process takes the kernel's longer way; but only these calls come here.
 */

/* current is back from a wait, or from a fork or clone; or it is on its way into exit_group, where the other threads still live: in
 * sched_process_exit the last of them could report the end while this one walks. */
int on_call(struct call_context *context)
{
    u64 number = context->number, signal = signal_of(bpf_get_current_task());
    struct process *process = followed.lookup(&signal);
    int waits = number == SYSCALL_WAIT4 || number == SYSCALL_WAITID;
    if (number == SYSCALL_EXIT_GROUP) {
        if (process)
            take_exit_stack(process);
        return 0;
    }
    s64 result = context->result;
    if (waits ? !process && (result < 0 || (result == 0 && number == SYSCALL_WAIT4)) : !process || !has_failed(number, result))
        return 0;
    u64 slot = claim();
    struct work *work = work_of(slot);
    if (slot == SLOTS || !work) {
        lose(waits ? WAIT : FORK_FAILED);
        return 0;
    }
    work->most = STACK_FRAMES;
    if (process)
        take_stack(slot);
    else
        no_stack(work);
    work->number = number;
    work->result = result;
    if (waits)
        report_waited(slot);
    else
        report_failed_fork(slot);
    give_back(work);
    return 0;
}
