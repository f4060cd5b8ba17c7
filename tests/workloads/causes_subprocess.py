"""Makes children by subprocess, and has each reaped by another way of it. Runs under Python 2.7 too."""

import gc
import inspect
import os
import subprocess

from witness import VERSION, say, until_zombie

TRUE = ["/bin/true"]
MADE = {"created_by": "subprocess", "exit_path": "not-python"}


def waits():
    child = subprocess.Popen(TRUE, close_fds=True)
    child.wait()
    say("wait", child.pid, reap_cause="subprocess-wait", **MADE)
    child = subprocess.Popen(["/bin/echo"], stdout=subprocess.PIPE, close_fds=True)
    child.communicate()
    say("communicate", child.pid, reap_cause="subprocess-wait", **MADE)
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=True)
    child.communicate(b"text")
    say("communicate(input)", child.pid, reap_cause="subprocess-wait", **MADE)
    shell = ["/bin/sh", "-c", "echo $$"]
    say("check_output", int(subprocess.check_output(shell)), reap_cause="subprocess-wait", **MADE)
    reader, writer = os.pipe()
    subprocess.call(shell, stdout=writer)
    say("call", int(os.read(reader, 20)), reap_cause="subprocess-wait", **MADE)
    os.close(reader)
    os.close(writer)


def polls():
    """3 looks at a child that lives, and one after it has ended."""
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, close_fds=True)
    for _ in range(3):
        assert child.poll() is None
    child.stdin.close()
    until_zombie(child.pid)
    assert child.poll() == 0
    say("poll", child.pid, reap_cause="poll", empty_waits=3, reap_options="WNOHANG", **MADE)


def dropped():
    """Popen objects without a reference: while the child runs, and after it has ended."""
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, close_fds=True)
    pid, stdin = child.pid, os.dup(child.stdin.fileno())
    child.stdin.close()
    del child
    gc.collect()
    os.close(stdin)
    until_zombie(pid)
    other = subprocess.Popen(TRUE, close_fds=True)
    say("dropped while it runs", pid, reap_cause="subprocess-cleanup", **MADE)
    other.wait()
    child = subprocess.Popen(TRUE, close_fds=True)
    pid = child.pid
    until_zombie(pid)
    del child
    gc.collect()
    assert not os.path.exists("/proc/%d" % pid)
    say("dropped when it has ended", pid, reap_cause="subprocess-cleanup", **MADE)


def killed():
    """kill() of a zombie: versions that look first reap it there."""
    child = subprocess.Popen(TRUE, close_fds=True)
    until_zombie(child.pid)
    child.kill()
    looks = VERSION >= (3, 5) and "self.poll()" in inspect.getsource(subprocess.Popen.send_signal)
    assert looks != os.path.exists("/proc/%d" % child.pid)
    child.wait()
    say("kill", child.pid, reap_cause="poll" if looks else "subprocess-wait", **MADE)


def no_program():
    """A child that cannot execute its program is reaped by the constructor; posix_spawn has a code of its own."""
    try:
        subprocess.Popen(["/nonexistent"], close_fds=True)
    except OSError:
        say(
            "no program",
            os.getpid(),
            what="parent",
            exit_codes=[127, 255],
            reap_cause="subprocess-wait",
            created_by="subprocess",
        )


def forks():
    child = subprocess.Popen(TRUE, close_fds=True, preexec_fn=int)
    child.wait()
    say("preexec_fn", child.pid, reap_cause="subprocess-wait", **MADE)
    child = subprocess.Popen(TRUE, close_fds=False)
    child.wait()
    say("close_fds=False", child.pid, reap_cause="subprocess-wait", **MADE)


def of_version_3():
    with subprocess.Popen(TRUE) as child:
        pass
    say("with", child.pid, reap_cause="subprocess-wait", **MADE)
    child = subprocess.Popen(["/bin/sleep", "0.02"])
    child.wait(timeout=20)
    say("wait(timeout)", child.pid, reap_cause="subprocess-wait", reap_options="WNOHANG", **MADE)
    child = subprocess.Popen(["/bin/sleep", "0.02"], stdout=subprocess.PIPE)
    child.communicate(timeout=20)
    say("communicate(timeout)", child.pid, reap_cause="subprocess-wait", **MADE)
    file = os.popen("echo $$")
    pid = int(file.read())
    file.close()
    say("os.popen", pid, reap_cause="subprocess-wait", **MADE)
    done = subprocess.run(["/bin/sh", "-c", "echo $$"], stdout=subprocess.PIPE)
    say("run", int(done.stdout), reap_cause="subprocess-wait", **MADE)
    try:
        subprocess.run(["/bin/sh", "-c", "echo $$; exec sleep 60"], stdout=subprocess.PIPE, timeout=0.6)
    except subprocess.TimeoutExpired as expired:
        values = {"term_signal": "SIGKILL", "killer_pid": os.getpid(), "exit_path": "signal", "created_by": "subprocess"}
        say("run(timeout)", int(expired.stdout), reap_cause="subprocess-wait", **values)


def main():
    waits()
    polls()
    dropped()
    killed()
    no_program()
    forks()
    if VERSION >= (3, 6):
        of_version_3()


if __name__ == "__main__":
    main()
