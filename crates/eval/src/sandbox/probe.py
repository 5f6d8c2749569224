# Tries what a program in the sandbox must not be able to do; prints each thing that it could.
import ctypes, os, socket, sys

could = []

def attempt(what, act):
    try:
        if act() is not False:
            could.append(what)
    except OSError:
        pass

allowed = {"usr", "lib", "lib32", "lib64", "bin", "tmp", "proc", "dev"} | {sys.argv[1].split("/")[1]}
extra = set(os.listdir("/")) - allowed
if extra:
    could.append("see " + ", ".join(sorted(extra)))
for folder in ["/", "/usr", "/usr/lib", "/proc", "/dev", sys.argv[1]]:
    attempt("write to " + folder, lambda: open(folder + "/fathom-probe", "w").close())
attempt("read the user's secret", lambda: open(sys.argv[2]).close())

def connect(address):
    with socket.socket() as s:
        s.settimeout(1)
        s.connect(address)

attempt("reach the network", lambda: connect(("192.0.2.1", 80)))
attempt("reach this machine", lambda: connect(("127.0.0.1", int(sys.argv[3]))))
others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
if others:
    could.append("see other processes")
libc = ctypes.CDLL(None)
attempt("mount", lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0)
attempt("make namespaces", lambda: libc.unshare(0x10000000) == 0)
attempt("change the host's name", lambda: libc.sethostname(b"probe", 5) == 0)
attempt("become another user", lambda: os.setuid(1234))
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
if int(status["CapEff"], 16) or int(status["CapBnd"], 16) or status["NoNewPrivs"] != "1":
    could.append("use or gain privileges")
open("/tmp/probe", "w").write("a program may write here")
print("; ".join(could) or "nothing")
