/* Forks as its very first instruction: static, without a C library. The child exits 3; the parent reaps it and exits 7 when
 * the status is right, 1 otherwise. */
static long call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

/* 57 fork, 60 exit, 61 wait4. */
__attribute__((noreturn, used)) static void after_fork(long pid)
{
    int status = -1;
    if (!pid)
        call(60, 3, 0, 0, 0);
    call(61, pid, (long)&status, 0, 0);
    call(60, status == 3 << 8 ? 7 : 1, 0, 0, 0);
    __builtin_unreachable();
}

__asm__(".globl _start\n"
        "_start: mov $57, %eax\n"
        "syscall\n"
        "mov %rax, %rdi\n"
        "and $-16, %rsp\n"
        "call after_fork\n");
