"""The six applications of the tests: how each is started, given a state, and asked for it over the network."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Exec = Callable[..., str]  # runs words in the application's container

PYTHON = """
import http.server, threading, time
import numpy
table = numpy.random.rand(64, 1024, 64)
rounds = 0
def work():
    global rounds
    while True:
        rounds += 1
        print('round', rounds, table[rounds % 64].sum(), flush=True)
        time.sleep(0.2)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(repr(float(table.sum())).encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('', 8080), Handler).serve_forever()
"""
NODE = """
const born = Math.random(); let n = 0;
setInterval(() => console.log('round', ++n), 200);
require('http').createServer((q, r) => r.end('' + born)).listen(8080);
"""
JAVA = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.*;

public class Warm {
    static final List<byte[]> HEAP = new ArrayList<>();

    static String sum() {
        long sum = 0;
        for (byte[] block : HEAP) sum = sum * 31 + Arrays.hashCode(block);
        return HEAP.size() + " MiB " + sum;
    }

    public static void main(String[] args) throws Exception {
        Random random = new Random();
        for (int i = 0; i < 200; i++) {
            byte[] block = new byte[1 << 20];
            random.nextBytes(block);
            HEAP.add(block);
        }
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.createContext("/", exchange -> {
            byte[] answer = sum().getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
        for (int n = 1; ; n++) {
            System.out.println("round " + n);
            Thread.sleep(200);
        }
    }
}
"""
POSTGRES = (
    "exec /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main"
    " -c config_file=/etc/postgresql/15/main/postgresql.conf -c listen_addresses=*"
)
# Named, because defaults differ: what containerd gives unasked is more than CRI-O's pods may have.
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETPCAP",
    "SETUID",
)
ASK_FOR_TLS = b"\0\0\0\x08\x04\xd2\x16\x2f"  # PostgreSQL's protocol, SSLRequest


@dataclass(frozen=True, slots=True)
class Application:
    """One application.

    Attributes:
        state: gives the container a state if it needs to be told one.
        ask: what it says of its state, by its address and a way to run words in it; equal before and after.
        rounds: whether its log counts on (``round N``).
        files: a ConfigMap's, mounted at /app.
    """

    name: str
    command: tuple[str, ...]
    port: int
    ask: Callable[[str, Exec], str]
    state: Callable[[Exec], object] = lambda _: None
    rounds: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    memory: str = "512Mi"


def http(address: str, path: str = "/", port: int = 8080) -> str:
    with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=10) as answer:
        body: bytes = answer.read()
        return body.decode()


def said(address: str, port: int, words: bytes) -> bytes:
    with socket.create_connection((address, port), timeout=10) as link:
        link.sendall(words)
        return link.recv(4096)


def psql(run: Exec, statement: str) -> str:
    return run("su", "postgres", "-c", f'psql -qAtc "{statement}"')


def _rows(address: str, run: Exec) -> str:
    assert said(address, 5432, ASK_FOR_TLS) in {b"S", b"N"}
    psql(run, "insert into kept values (3); delete from kept where n = 3")  # it still writes
    return psql(run, "select sum(n) from kept")


def _answer(address: str, run: Exec) -> str:
    assert run("redis-cli", "get", "answer").strip() == "42"
    return said(address, 6379, b"GET answer\r\n").decode()


def _page(address: str, run: Exec) -> str:
    workers = run("pgrep", "-c", "-u", "www-data", "nginx").strip()
    return f"{http(address, '/state.html', 80)} of {workers}"


ALL = (
    Application(
        "redis",
        ("redis-server", "--protected-mode", "no", "--save", ""),
        6379,
        _answer,
        lambda run: run("redis-cli", "set", "answer", "42"),
    ),
    Application(
        "postgresql",
        ("su", "postgres", "-c", POSTGRES),
        5432,
        _rows,
        lambda run: psql(run, "create table kept (n int); insert into kept values (40), (2)"),
    ),
    Application(
        "nginx",
        ("nginx", "-g", "daemon off;"),
        80,
        _page,
        lambda run: run("sh", "-c", "echo kept > /var/www/html/state.html"),
    ),
    Application("node", ("node", "-e", NODE), 8080, lambda a, _: http(a), rounds=True),
    Application("python", ("python3", "-c", PYTHON), 8080, lambda a, _: http(a), rounds=True),
    Application(
        "jvm",
        ("java", "-Xms256m", "-Xmx512m", "/app/Warm.java"),
        8080,
        lambda a, _: http(a),
        rounds=True,
        files={"Warm.java": JAVA},
        memory="900Mi",
    ),
)


def pod(
    app: Application, name: str, image: str, node: str, annotations: Mapping[str, str]
) -> dict[str, Any]:
    """A pod of ``app`` with both probes; annotated ones get the handler ``snap``."""
    probe = {"tcpSocket": {"port": app.port}, "periodSeconds": 1, "failureThreshold": 3}
    container: dict[str, Any] = {
        "name": "app",
        "image": image,
        "command": list(app.command),
        "resources": {"limits": {"memory": app.memory}},
        "securityContext": {"capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)}},
        "readinessProbe": probe,
        "livenessProbe": {**probe, "initialDelaySeconds": 30},
    }
    spec: dict[str, Any] = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    if app.files:
        spec["volumes"] = [{"name": "files", "configMap": {"name": app.name}}]
        container["volumeMounts"] = [{"name": "files", "mountPath": "/app"}]
    if annotations:
        spec["runtimeClassName"] = "snap"
    metadata = {"name": name, "namespace": "apps", "annotations": dict(annotations)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
