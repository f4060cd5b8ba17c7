/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What the probes hand to user space: one record a kernel moment, through one ring buffer. forktrace/live/records.py reads
 * this file to learn the layout, so a field added here is a field there; tests/unit/test_records.py holds the enums against
 * the tuples of forktrace/trace/events.py (same order). Records of two CPUs can swap: sort by time.
 */
#pragma once

enum kind { FORK, FORK_FAILED, EXEC, EXIT, ZOMBIE, WAIT, REAP, AUTOREAP, SIGNAL, OOM, KINDS };
enum origin { TARGET, FORKED, ATTACHED, ADOPTED };
enum call { CALL_FORK, CALL_VFORK, CALL_CLONE, CALL_CLONE3, WAIT4, WAITID, IO_URING, KERNEL, UNSEEN };
enum target { PID, ANY, PGID, PIDFD };
enum disposition { DEFAULT, HANDLER, IGNORED, NOCLDWAIT };
enum sent_by { BY_PROCESS, BY_KERNEL, BY_OOM, BY_PDEATHSIG, BY_PIDNS };
#define NONE 255 /* of any of these enums: not known */

/* What can get lost beside the records themselves; the indexes go on after enum kind. */
enum loss { PROCESSES_UNFOLLOWED = KINDS, WAIT_PLACES, CHILDREN_UNADOPTED, NUMBERS_UNKNOWN, LOSSES };

#define ARGV_BYTES 4096
#define FILE_BYTES 256
#define COMM_BYTES 16
#define NS_LEVELS 4

/* A thread, or with tid 0 a process: numbers in the recorder's PID namespace, 0 when it cannot be seen from there. */
struct who {
    u64 start_ns;
    u32 pid;
    u32 tid;
};

struct head {
    u64 time_ns;
    u32 kind;
    u32 pad;
    struct who process; /* whom it is about */
    struct who by;      /* who acted */
};

struct fork_record {
    struct head head; /* by: the forking thread */
    struct who parent;
    u64 flags;
    u64 cgroup_id;
    u32 exit_signal;
    u32 ns_pids[NS_LEVELS]; /* its numbers in its innermost namespaces, innermost last; 0: fewer levels */
    u8 origin;
    u8 call;
    char comm[COMM_BYTES];
};

struct fork_failed_record {
    struct head head; /* process and by: the caller */
    u64 tasks;        /* of this user, against RLIMIT_NPROC */
    u64 tasks_max;
    u64 cgroup_pids; /* of the first cgroup upward that is full, against its pids.max; both 0: none is */
    u64 cgroup_pids_max;
    u32 ns_pids; /* numbers in use in its PID namespace, against pid_max */
    u32 ns_pids_max;
    u32 error;
    u8 call;
};

struct exec_record {
    struct head head; /* by: the calling thread, by its number before the exec */
    u64 cgroup_id;
    u32 argv_bytes; /* of the whole; ARGV_BYTES or more: cut */
    char comm[COMM_BYTES];
    char file[FILE_BYTES];
    char argv[ARGV_BYTES]; /* the record ends where argv does */
};

struct exit_record {
    struct head head;  /* by: the last thread */
    struct who parent; /* the real parent at this moment */
    struct who adopter; /* who inherits its children */
    u64 utime_ticks_ns; /* sampled at ticks: only their ratio counts */
    u64 stime_ticks_ns;
    u64 runtime_ns; /* exact */
    u64 max_rss_pages;
    u32 status;
    u32 exit_signal;
    u8 disposition; /* of SIGCHLD in the real parent */
    char comm[COMM_BYTES];
};

struct zombie_record {
    struct head head;  /* by: who notified; the process itself, its dying parent, or its tracer */
    struct who parent; /* who was notified */
    u32 signal;
    u8 disposition;
};

struct wait_record { /* WAIT and REAP */
    struct head head;  /* by: the waiting thread; process: the child, all 0 when it cannot be told */
    u64 zombie_ns;     /* when the child became a zombie, 0 when not known */
    u64 empty_waits;   /* calls for this very child that came back empty, before this one */
    u32 ns;            /* inode number of the waiter's PID namespace, and the child's number there */
    u32 ns_pid;
    u32 status;
    u32 options;
    s32 target_pid;
    u32 error;
    u8 call;
    u8 target;
    u8 has_status;
};

struct autoreap_record {
    struct head head;
    struct who parent;
    u64 zombie_ns;
    u64 empty_waits;
    u8 disposition;
};

struct signal_record { /* SIGNAL and OOM */
    struct head head; /* by: the sender, all 0 when current is not the sender */
    u32 signal;
    u8 disposition; /* of this signal in the target */
    u8 sent_by;
};

/* Where wait calls came back without a child; the key of wait_totals. */
struct wait_place {
    u64 start_ns; /* of the waiting process */
    u32 pid;
    u32 options;
    u32 error; /* 0 empty, 4 EINTR, 10 ECHILD */
    u8 call;
    u8 target;
    u8 pad[2];
};
