"""What the pods of the failures' tests run: programs that hold something, and say twice a second what has become of it.

Each line of a program is one JSON object: ``n`` counts up in memory, the rest is what it holds. A restored program is
the only thing that has nothing but later numbers in its log.
"""

from __future__ import annotations

from typing import Final

_BEGIN: Final = """
import ctypes, errno, fcntl, json, mmap, os, select, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True)
holds, n = {}, 0
def told(check):
    try:
        return check()
    except BlockingIOError:
        return 'would block'
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
def text(path):
    with open(path) as f:
        return f.read().strip()
"""
_GO_ON: Final = """
while True:
    n += 1
    found = {name: told(check) for name, check in holds.items()}
    print(json.dumps({'n': n, **found}), flush=True)
    time.sleep(0.5)
"""
# connections: one that talks, one that nobody has accepted, the listener of both; the clock; a timer
NETWORK: Final = (
    _BEGIN
    + """
listener = socket.create_server(('', 7000))
waiting = socket.create_server(('', 7001))
client = socket.create_connection(('127.0.0.1', 7000))
server, _ = listener.accept()
unheard = socket.create_connection(('127.0.0.1', 7001))
for one in (client, unheard):
    one.setblocking(False)
began, timer = time.monotonic(), []
signal.signal(signal.SIGALRM, lambda *_: timer.append(1))
signal.setitimer(signal.ITIMER_REAL, 3600)
def established():
    server.send(b'x')
    select.select([client], [], [], 1)
    return 'talks' if client.recv(100) else 'ended'
def in_flight():
    return 'talks' if unheard.recv(100) else 'ended'
def accepts():
    with socket.create_connection(('127.0.0.1', 7000)) as again:
        there, _ = listener.accept()
        with there:
            there.send(b'y')
            return 'talks' if again.recv(1) == b'y' else 'dumb'
holds.update(established=established, in_flight=in_flight, listener=accepts,
    monotonic=time.monotonic, wall=time.time, timer_s=lambda: signal.getitimer(signal.ITIMER_REAL)[0])
"""
    + _GO_ON
)
# files: of an emptyDir (open and not), of /dev/shm, of a ConfigMap and of the node, locked, deleted, and the root's
FILES: Final = (
    _BEGIN
    + """
lines = open('/vol/open', 'a+')
with open('/vol/shut', 'w') as f:
    f.write('kept')
color = open('/conf/color')
node = open('/host/file')
locked, counted = open('/vol/flock', 'w'), open('/opt/fcntl', 'w')
fcntl.flock(locked, fcntl.LOCK_EX)
fcntl.lockf(counted, fcntl.LOCK_EX)
ghost = open('/vol/ghost', 'w+b')
ghost.write(os.urandom(2 << 20))
ghost.flush()
os.unlink('/vol/ghost')
def sum_of_ghost():
    ghost.seek(0)
    return hash(ghost.read()) and len(os.pread(ghost.fileno(), 3 << 20, 0))
with open('/dev/shm/page', 'wb') as f:
    f.write(b'shared'.ljust(4096))
page = mmap.mmap(os.open('/dev/shm/page', os.O_RDWR), 4096)
with open('/vol/holes', 'wb') as f:
    f.truncate(4 << 30)
os.remove('/etc/os-release')
os.rmdir('/mnt')
os.mkdir('/mnt')
open('/mnt/new', 'w').close()
def cut():
    lines.write('line %d\\n' % n)
    lines.flush()
    lines.seek(0)
    return 'exact' if [int(l.split()[1]) for l in lines] == list(range(1, n + 1)) else 'torn'
def other(take):
    child = os.fork()
    if not child:
        try:
            take()
        except OSError:
            os._exit(1)
        os._exit(0)
    return 'held' if os.waitpid(child, 0)[1] else 'free'
def flock():
    return other(lambda: fcntl.flock(open('/vol/flock'), fcntl.LOCK_EX | fcntl.LOCK_NB))
def lockf():
    return other(lambda: fcntl.lockf(open('/opt/fcntl', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB))
def open_color():
    color.seek(0)
    return color.read().strip()
holds.update(cut=cut, shut=lambda: text('/vol/shut'), by_fd=open_color, by_path=lambda: text('/conf/color'),
    node=lambda: os.pread(node.fileno(), 100, 0).decode().strip(), flock=flock, lockf=lockf, ghost=sum_of_ghost,
    shm=lambda: page[:6].decode() + ' ' + text('/dev/shm/page')[:6],
    root=lambda: ' '.join(sorted(os.listdir('/mnt'))) + ' ' + str(os.path.exists('/etc/os-release')),
    holes=lambda: '%d %s' % (os.path.getsize('/vol/holes') >> 30, os.stat('/vol/holes').st_blocks < 2048))
"""
    + _GO_ON
)
# memory: shared with a child, of a memfd, of System V; watches of a folder of the root and of an emptyDir; a pipe;
# a clock
MEMORY: Final = (
    _BEGIN
    + """
shared = mmap.mmap(-1, 4096)
if not os.fork():
    while True:
        shared[:8] = (int.from_bytes(shared[:8], 'little') + 1).to_bytes(8, 'little')
        time.sleep(0.05)
memfd = os.memfd_create('kept')
os.write(memfd, b'memfd')
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmat(libc.shmget(4711, 4096, 0o1600), None, 0)
ctypes.memmove(segment, b'sysv', 5)
os.makedirs('/watched/deep')
watch = libc.inotify_init1(os.O_NONBLOCK)
for path in (b'/watched/deep', b'/vol'):
    libc.inotify_add_watch(watch, path, 0x100)  # IN_CREATE
reading, writing = os.pipe()
clock = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK)
libc.timerfd_settime(clock, 0, (ctypes.c_long * 4)(0, 50_000_000, 0, 50_000_000), None)
time.sleep(0.2)
def moves():
    before, limit = shared[:8], time.monotonic() + 30
    while shared[:8] == before and time.monotonic() < limit:
        time.sleep(0.01)
    return 'moves' if shared[:8] != before else 'stands'
def sees(folder):
    path = '%s/%d' % (folder, n)
    open(path, 'w').close()
    got = os.read(watch, 4096)
    os.unlink(path)
    return 'sees' if str(n).encode() in got else 'misses'
def pipe():
    os.write(writing, b'z')
    return os.read(reading, 1).decode()
holds.update(ticks=lambda: 'ticks' if os.read(clock, 8) else 'off')
holds.update(shared=moves, memfd=lambda: os.pread(memfd, 5, 0).decode(), pipe=pipe,
    sysv=lambda: ctypes.string_at(segment).decode(), root=lambda: sees('/watched/deep'), volume=lambda: sees('/vol'))
"""
    + _GO_ON
)
# many processes, and always one that begins or ends
FORKING: Final = (
    _BEGIN
    + """
children = []
for _ in range(30):
    child = os.fork()
    if not child:
        while True:
            time.sleep(1)
    children.append(child)
if not os.fork():
    while True:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.005)
holds.update(children=lambda: sum(os.path.exists('/proc/%d' % one) for one in children))
"""
    + _GO_ON
)
# ends with a status of its own as soon as it finds itself in another time: at once when it is let go
ENDING: Final = (
    _BEGIN
    + """
offset = time.time() - time.monotonic()
while time.time() - time.monotonic() < offset + 2:
    n += 1
    print(json.dumps({'n': n}), flush=True)
    time.sleep(0.1)
print(json.dumps({'n': n, 'ends': True}), flush=True)
os._exit(7)
"""
)
BOUND: Final = (
    _BEGIN
    + """
way = socket.socket(type=socket.SOCK_DGRAM)
way.connect(('192.0.2.1', 9))  # sends nothing, and tells the pod's own address
mine = socket.create_server((way.getsockname()[0], 7000))
"""
    + _GO_ON
)
RING: Final = (
    _BEGIN
    + """
parameters = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 8, parameters)  # io_uring_setup
assert ring >= 0, errno.errorcode[ctypes.get_errno()]
"""
    + _GO_ON
)
# stopped: CRIU would wait for it for ever, with all else frozen
STOPPED: Final = (
    _BEGIN
    + """
child = os.fork()
while not child:
    time.sleep(1)
os.kill(child, signal.SIGSTOP)
"""
    + _GO_ON
)
TRACED: Final = (
    _BEGIN
    + """
if not os.fork():
    libc.ptrace(0, 0, None, None)  # PTRACE_TRACEME
    while True:
        time.sleep(1)
"""
    + _GO_ON
)
SANDBOX: Final = (
    _BEGIN
    + """
assert not libc.unshare(0x20000000), errno.errorcode[ctypes.get_errno()]  # CLONE_NEWPID
if not os.fork():
    while True:
        time.sleep(1)
"""
    + _GO_ON
)
QUEUE: Final = (
    _BEGIN
    + """
queue = libc.mq_open(b'/kept', os.O_RDWR | os.O_CREAT, 0o600, None)
assert queue >= 0, errno.errorcode[ctypes.get_errno()]
"""
    + _GO_ON
)
SEGMENT: Final = (
    _BEGIN
    + """
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmat(libc.shmget(4711, 4096, 0o1600), None, 0)
"""
    + _GO_ON
)
PLAIN: Final = _BEGIN + _GO_ON
# threads, and whether a seccomp filter holds for each
THREADS: Final = (
    _BEGIN
    + """
import _thread
for _ in range(3):
    _thread.start_new_thread(time.sleep, (1e6,))
def modes():
    files = [f'/proc/self/task/{t}/status' for t in os.listdir('/proc/self/task')]
    return ' '.join(text(file).split('Seccomp:')[1].split()[0] for file in files)
holds['modes'] = modes
"""
    + _GO_ON
)
COUNTING: Final = """
n=0; while :; do n=$((n + 1)); echo "tick $n"; sleep 0.2; done
"""
