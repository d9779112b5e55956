"""What the unit serves while `cargo xtask service` looks at it: orders, and a look around the cage of tasks."""

import ctypes
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import tempfile
import time

import evermill

NEW_USER_NAMESPACE = 0x10000000


@evermill.task(memory_limit="256MB", nice=5, secrets=["api_key"])
def load(event, ctx):
    order = event.json()
    bytearray(order["bytes"])
    time.sleep(order["seconds"])
    print("order", order["n"], "is loaded with a key of", len(ctx.secret("api_key")), "letters")


@evermill.dag
def orders():
    load(evermill.webhook(name="in"))


def is_refused(what):
    try:
        what()
    except OSError:
        return True
    return False


def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def set_user_id_file():
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o4755)


@evermill.task
def look(event):
    """Fails with what is open and should not be; what a usual task needs raises by itself."""
    must_not = {
        "a file of the system": lambda: open("/usr/x", "w"),
        "a DAG file": lambda: open("/etc/evermill/dags/flows.py", "a"),
        "the key of secrets": lambda: open("/etc/evermill/secret.key"),
        "homes": lambda: os.listdir("/home"),
        "the kernel's log": lambda: open("/dev/kmsg"),
        "a namespace": lambda: call("unshare", NEW_USER_NAMESPACE),
        "an interface of the kernel": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
        "a file with another's rights": set_user_id_file,
        "the memory of process 1": lambda: open("/proc/1/environ"),
    }
    done = [name for name, what in must_not.items() if not is_refused(what)]
    assert not done, f"a task could have: {done}"
    assert subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode != 0, "a task could be root"
    with multiprocessing.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    with tempfile.TemporaryDirectory() as folder:
        sqlite3.connect(f"{folder}/some.db").execute("PRAGMA journal_mode = wal")
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(abs)(-3) == 3


@evermill.dag
def cage():
    look(evermill.webhook(name="in"))
