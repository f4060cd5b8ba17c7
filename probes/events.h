/* SPDX-License-Identifier: MIT OR GPL-2.0
 *
 * What the probes send to user space: one record for each kernel moment, through one ring buffer.
 * forktrace/recorder/rows.py reads the layout from this file. tests/unit/test_rows.py compares the enums with the tuples of
 * forktrace/trace/events.py (same order). Records of two CPUs can swap: sort by time.
 */
#pragma once

enum kind { FORK, FORK_FAILED, EXEC, EXIT, ZOMBIE, WAIT, REAP, AUTOREAP, SIGNAL, OOM, REQUEST, STACK, CODE, KINDS };
enum origin { TARGET, FORKED, ATTACHED, ADOPTED };
enum call { CALL_FORK, CALL_VFORK, CALL_CLONE, CALL_CLONE3, WAIT4, WAITID, IO_URING, KERNEL, UNSEEN };
enum target { PID, ANY, PGID, PIDFD };
enum disposition { DEFAULT, HANDLER, IGNORED, NOCLDWAIT };
enum sent_by { BY_PROCESS, BY_KERNEL, BY_OOM, BY_PDEATHSIG, BY_PIDNS };
enum moment { AS_SEEN, AT_THE_LATEST, ESTIMATED };
enum exit_from { INTERPRETER, PY_EXIT, OTHER_CODE, RETURNED };
enum stack_status { STACK_OK, NO_RUNTIME, NO_THREAD_STATE, READ_FAULT, TRUNCATED, NOT_PYTHON, STACK_LOST };
#define NONE 255 /* of any of these enums: not known */

/* What can be lost besides records. The indexes continue those of enum kind. */
enum loss { PROCESSES_UNFOLLOWED = KINDS, WAIT_PLACES, CHILDREN_UNADOPTED, NUMBERS_UNKNOWN, QUESTIONS, LOSSES };

#define ARGV_BYTES 4096
#define FILE_BYTES 256
#define COMM_BYTES 16
#define NS_LEVELS 4
#define STACK_FRAMES 1024
#define NAME_BYTES 256
#define PATH_BYTES 1024
#define LINES_BYTES 16384
#define CODE_BYTES 17664
#define SUN_PATH_BYTES 108 /* of a socket's address, at the most (unix(7)) */
#define ADDRESS_BYTES 128

/* A thread, or with tid 0 a process. Numbers are those of the recorder's PID namespace; 0: not visible there. */
struct who {
    u64 start_ns;
    u32 pid;
    u32 tid;
};

struct head {
    u64 time_ns;
    u32 kind;
    u32 stack_status;   /* NONE: no stack was asked for */
    u64 stack;          /* of `by`: the id of a stack_record; with NO_RUNTIME the key of the file that is not known yet */
    struct who process; /* the subject */
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
    struct head head; /* by: the calling thread, with its tid before the exec */
    u64 cgroup_id;
    u32 argv_bytes; /* of the whole argv; ARGV_BYTES or more: cut */
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
    u8 exit_from;
    u8 moment; /* what head.time_ns is. For a zombie from before the recording: when it was found; user space may know more */
    char comm[COMM_BYTES];
};

struct zombie_record {
    struct head head;  /* by: who notified; the process itself, its dying parent, or its tracer */
    struct who parent; /* who was notified */
    u32 signal;
    u8 disposition;
    u8 waiters; /* threads of the parent in a wait that takes this child; NONE: not known */
    u8 stopped; /* the whole parent is stopped, as by SIGSTOP */
};

struct wait_record { /* WAIT and REAP */
    struct head head;  /* by: the waiting thread; process: the child, all 0 when not known */
    u64 zombie_ns;     /* when the child became a zombie; 0: not known */
    u64 empty_waits;   /* earlier calls for this child that returned no child */
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
    struct head head; /* by: the sender; all 0 when current is not the sender */
    u32 signal;
    u8 disposition; /* of this signal in the target */
    u8 sent_by;
};

struct request_record {
    struct head head; /* process and by: the client */
    char address[ADDRESS_BYTES]; /* of the server's socket; an abstract address begins with a zero byte */
};

/* A place whose wait calls returned no child: the key of wait_totals. */
struct wait_place {
    u64 start_ns; /* of the waiting process */
    u32 pid;
    u32 options;
    u32 error; /* 0 empty, 4 EINTR, 10 ECHILD */
    u8 call;
    u8 target;
    u8 pad[2];
    u64 stack;
    u32 stack_status;
    u32 pad2;
};

/* One frame of a Python stack: its code and the place in it. */
struct frame {
    u64 code;        /* the key of a code_record; 0: C code called Python here */
    u32 instruction; /* offset in bytes, in instructions in 3.10 */
    u32 handled;     /* this frame is a signal handler, called for this signal; 0: it is none */
};

/* A new stack, innermost frame first. The record ends after the last frame. */
struct stack_record {
    u64 id;
    u32 kind;
    u32 count;
    struct frame frames[STACK_FRAMES];
};

/* A new code object. `data` holds its name, its path and its line table; the record ends after them.
 * Text is as CPython stores it: 1, 2 or 4 bytes a character. */
struct code_record {
    u64 key;
    u32 kind;
    u32 version; /* 0x030b */
    u64 file;    /* of the interpreter, by file_key */
    u32 first_line;
    u32 name_bytes;
    u32 name_width;
    u32 path_bytes;
    u32 path_width;
    u32 lines_bytes;
    u64 lines_whole; /* more than lines_bytes: the table was cut */
    u8 data[CODE_BYTES];
};

/* A file that user space has to classify: a program, or a library whose name begins with libpython. Is it an interpreter?
 * Questions have a ring of their own. */
struct question {
    u64 file;   /* by file_key */
    u64 mapped; /* address of the library; 0: it is the program */
    u64 pid;
};

/* The layout of one interpreter, by its file; all offsets in bytes. User space fills it from the ELF file and its table of
 * versions (forktrace/cpython/layouts.py). */
struct interpreter {
    u64 runtime;    /* address in the file of _PyRuntime, before 3.7 of interp_head */
    u64 first_page; /* address in the file that is mapped at the start of a library */
    u64 first_code; /* address in the file that is mapped at mm->start_code of a program */
    u64 py_exit;
    u64 py_exit_end;
    u64 text;
    u64 text_end;
    u64 file; /* its own key */
    u64 instruction_is_pointer; /* all ones: a frame holds a pointer to its instruction, 0: an offset */
    u32 version;                /* 0x030b; 0: this file is no interpreter */
    u32 runtime_interpreters;
    u32 interpreter_next;
    u32 interpreter_threads;
    u32 thread_next;
    u32 thread_id;
    u32 thread_frame;
    u32 cframe_frame;
    u32 has_cframe; /* thread_frame points to a cframe, which points to the frame */
    u32 frame_bytes;
    u32 frame_code;
    u32 frame_back;
    u32 frame_instruction;
    u32 frame_owner; /* 0: frames have no owner */
    u32 frame_locals;
    u32 frame_of_object; /* where a frame object points to its frame; 0: it is the frame */
    u32 int_digit;
    u32 tuple_items;
    u32 code_first_line;
    u32 code_path;
    u32 code_name;
    u32 code_lines;
    u32 code_instructions;
    u32 code_version; /* 0: code objects have none */
    u32 text_kind;    /* the bit of a str's state at which its kind begins; below it is how the str is interned */
    u32 text_width_mask; /* a character of a str takes (kind & mask) | width bytes */
    u32 text_width;
    u32 text_ascii;   /* where the characters are, if they are ASCII */
    u32 text_compact; /* ... if they are not */
    u32 bytes_data;
    u32 head_bytes;  /* of the header of every object: 16, in a free-threaded build 32 */
    u32 frame_copy;  /* free-threaded: which copy of the bytecode a frame runs */
    u32 code_copies; /* free-threaded: where a code object has the list of its copies; 0: there are none */
    u32 returns;     /* main returns after SystemExit, too, without Py_Exit */
};
