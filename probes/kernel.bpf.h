/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * The language that all probes are written in: how kernel memory is read, and how one compiled object serves every kernel.
 *
 * A kernel object is held as its address in a u64 and read with bpf_probe_read_kernel, so that BCC rewrites nothing here.
 *
 * Facts. Where a member lies, the number of a system call, whether the kernel has a thing: each such name (task_pid, SYSCALL_WAIT4,
 * HAS_CGROUPS) is FACT(n), an instruction of its own that loads a marked number. The loader puts the value of the kernel that runs in
 * its place (forktrace/kernel/facts.py has them all). The verifier then knows the value: what is behind a HAS_ that is 0 is dead code.
 *
 * Shared functions. `u64 shared_NAME(u64 number)` is verified once in each program and not at each call; it has a stack frame of its own.
 * BCC knows no calls between functions, so NAME(number) calls a helper of a number that no helper has, and the loader makes it
 * a call of the function (forktrace/kernel/linking.py). The number is all that it is handed: mostly the slot, see below.
 *
 * Slots. What a probe works with is too large for the 512 bytes of all its frames together, so it lies in a struct work of the processor.
 * A probe claims a slot, and gives it back. There are several, since an interrupt, or another task where the kernel may preempt a
 * probe, can come in between. Claims are counted by an addition that cannot be torn, and looked at after it: of two that meet both
 * may lose, but never do both win. Who gets no slot counts its event as lost.
 */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define FACT(n) ({ u64 fact_; asm volatile("%0 = 0x666f726b0000" #n " ll" : "=r"(fact_)); fact_; })

#define READ(into, address) bpf_probe_read_kernel(&(into), sizeof(into), (void *)(address))
#define READ_USER(into, address) read_user(&(into), sizeof(into), (void *)(address))

/* bpf_probe_read_user by another name: at each place where BCC finds that one, it sorts all symbols of the kernel, for 60 ms. */
static int (*read_user)(void *into, u64 bytes, const void *from) = (void *)BPF_FUNC_probe_read_user;

#define MAX_ERRNO 4095

#define CLONE_PARENT 0x00008000
#define CLONE_THREAD 0x00010000
#define PF_EXITING 0x00000004
#define SIGNAL_GROUP_EXIT 0x00000004
#define SIGCHLD 17
#define SA_NOCLDWAIT 2
#define WNOHANG 1
#define WEXITED 4
#define WNOWAIT 0x01000000
#define PIDTYPE_TGID 1
#define RLIMIT_NPROC 6
#define WAKE_UP 2   /* BPF_RB_FORCE_WAKEUP: user space must act before the process gets far */
#define NO_WAKEUP 1 /* BPF_RB_NO_WAKEUP: user space looks on a timer; a wake-up costs the target 6 to 17 us */

/* Keeps the compiler from joining what is before and after: it would or two pointers, which the verifier forbids. */
#define KEEP_APART() asm volatile("" ::: "memory")

/* What a program is handed. A program that is preempted is skipped for every other task on that processor until it goes on, so:
 *
 * | program           | where it runs, and what it is handed      | why it is not preempted                                         |
 * |-------------------|-------------------------------------------|-----------------------------------------------------------------|
 * | fork, exec, exit  | raw tracepoint: its arguments             | preemption is off there before Linux 7.0                        |
 * |                   | RAW_IS_PREEMPTED: trace event, its members| perf turns preemption off; but it is skipped while bpf(2)       |
 * |                   |                                           | reads or writes a map, on any kernel                            |
 * | signal, free, ... | raw tracepoint: its arguments             | siglock is held; it is a callback of RCU                        |
 * | system calls      | trace event: number and result            | before 7.2 as above; since then it is, and has copies:          |
 * |                   |                                           | work.bpf.h                                                      |
 */
union context {
    u64 args[8]; /* of a raw tracepoint; of a trace event only the address is used */
};
struct call_context {
    u64 common;
    u32 number;
    u32 pad;
    s64 result; /* at an exit */
};
