/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * Conventions of all probes: how kernel memory is read, and how one compiled object fits every kernel.
 *
 * Kernel objects. A u64 holds the address; bpf_probe_read_kernel reads it. So BCC has nothing to rewrite.
 *
 * Facts. The offset of a member, the number of a system call, whether the kernel has a feature: each such name (task_pid, SYSCALL_WAIT4,
 * HAS_CGROUPS) is FACT(n), one instruction that loads a marked number. The loader replaces it with the value of the running kernel
 * (forktrace/kernel/facts.py lists them). So the verifier knows the value: code behind a HAS_ that is 0 is dead.
 *
 * Shared functions. `u64 shared_NAME(u64 number)` is verified once in each program, not at each call. It has its own stack frame.
 * BCC supports no calls between functions. NAME(number) calls a helper number that does not exist, and the loader turns it into a call of
 * the function (forktrace/kernel/linking.py). The number is its only argument: mostly a slot.
 *
 * Slots. A probe's working memory does not fit into the 512 bytes of its stack, so it is a struct work of the processor. A probe claims
 * a slot and gives it back. There are several, because an interrupt, or another task on a preemptible kernel, can run a probe in between.
 * Claims are counted by an atomic addition and read after it: of two that collide, both may lose, but never do both win. A probe
 * without a slot counts its event as lost.
 */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define FACT(n) ({ u64 fact_; asm volatile("%0 = 0x666f726b0000" #n " ll" : "=r"(fact_)); fact_; })

#define READ(into, address) bpf_probe_read_kernel(&(into), sizeof(into), (void *)(address))
#define READ_USER(into, address) read_user(&(into), sizeof(into), (void *)(address))

/* bpf_probe_read_user under another name: for each use of that name BCC sorts all kernel symbols, which takes 60 ms. */
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

/* Keeps the compiler from merging the conditions before and after: it would "or" two pointers, which the verifier rejects. */
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
