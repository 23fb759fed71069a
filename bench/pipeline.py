"""What machine and registry allow: a bare download; ``zstd -1 -T2``, ``openssl dgst -sha256``, one upload in a pipe."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import ssl
import subprocess
import urllib.parse
from pathlib import Path
from typing import Final

from bench.case import Unusable
from bench.lab import Lab

STEP_S: Final = 900.0
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_PIPE: Final = (
    'set -o pipefail; zstd -1 -T2 -q -c "$1" | tee >(openssl dgst -sha256 -r > "$2/digest.tmp"; '
    'mv "$2/digest.tmp" "$2/digest") | curl -sS --fail --cacert "$3" -K "$2/login" -X PATCH '
    '-H "Content-Type: application/octet-stream" -H "Expect:" -D "$2/headers" -o /dev/null -T - "$4"; '
    's=$?; until [ -e "$2/digest" ]; do sleep 0.005; done; exit $s'
)

# folder, CA, login, tool, address; 255 has xargs stop
_ONE: Final = (
    'set -o pipefail; wanted=${5##*:}; out=$1/$wanted; [ "$4" = cat ] && tool=cat || tool="zstd -dcq"; '
    'curl -sS --fail --cacert "$2" -K "$3" "$5" | '
    'tee >(openssl dgst -sha256 -r >"$out.tmp"; mv "$out.tmp" "$out.sum") | $tool >"$out" || exit 255; '
    'until [ -e "$out.sum" ]; do sleep 0.002; done; grep -q "^$wanted" "$out.sum" || exit 255'
)
_EACH: Final = (
    'printf "%s\\n" "$5" | xargs -P 4 -L 1 bash -c "$4" one "$1" "$2" "$3"'  # the rest is a line's
)


def upload(lab: Lab, archive: Path, repository: str) -> None:
    """Bring ``archive``, compressed, to the registry as one blob.

    Raises:
        Unusable: the registry did not take it.
        subprocess.CalledProcessError: a part of the pipe failed.
    """
    registry = lab.world.checkpoints
    folder = lab.scratch / "pipeline"
    folder.mkdir(exist_ok=True)
    (folder / "digest").unlink(missing_ok=True)
    login = folder / "login"
    login.touch(mode=0o600)
    login.write_text(f'user = "{registry.user}:{registry.password}"\n')
    place = _ask(lab, "POST", f"/v2/{repository}/blobs/uploads/", 202)
    words = [str(archive), str(folder), str(registry.ca), place]
    _run(lab, ["bash", "-c", _PIPE, "pipeline", *words])
    digest = "sha256:" + (folder / "digest").read_text().split()[0]
    after = _location(folder / "headers") or place
    mark = "&" if "?" in after else "?"
    _ask(lab, "PUT", f"{after}{mark}digest={urllib.parse.quote(digest)}", 201)


def download(lab: Lab, image: str) -> None:
    """Bring every layer of ``image`` (NAME@DIGEST) here and throw it away: what registry and disk allow.

    Raises:
        subprocess.CalledProcessError: a layer did not come.
    """
    curl, layers = _layers(lab, image)
    everything = [word for url, _ in layers for word in ("-o", "/dev/null", url)]
    _run(lab, [*curl, "--parallel", "--parallel-max", "4", *everything])


def unpack(lab: Lab, image: str) -> None:
    """Bring every layer here, check its digest, write it to the disk unpacked; four at once.

    Raises:
        subprocess.CalledProcessError: a layer did not come, or not as its digest says.
    """
    _, layers = _layers(lab, image)
    folder = lab.scratch / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lines = "\n".join(f"{tool} {url}" for url, tool in layers)
    here = [str(folder), str(lab.world.checkpoints.ca), str(lab.scratch / "login")]
    try:
        _run(lab, ["bash", "-c", _EACH, "each", *here, _ONE, lines])
    finally:
        shutil.rmtree(folder)


def _layers(lab: Lab, image: str) -> tuple[list[str], list[tuple[str, str]]]:
    """How to call curl; every layer's address, and what unpacks it."""
    registry = lab.world.checkpoints
    login = lab.scratch / "login"
    login.touch(mode=0o600)
    login.write_text(f'user = "{registry.user}:{registry.password}"\n')
    repository, _, digest = image.partition("/")[2].partition("@")
    base = f"https://{registry.host}/v2/{repository}"
    curl = ["curl", "-sS", "--fail", "--cacert", str(registry.ca), "-K", str(login)]
    manifest = json.loads(
        _run(lab, [*curl, "-H", f"Accept: {MANIFEST}", f"{base}/manifests/{digest}"])
    )
    tools = {True: "zstd", False: "cat"}
    return curl, [
        (f"{base}/blobs/{layer['digest']}", tools[str(layer["mediaType"]).endswith("+zstd")])
        for layer in manifest["layers"]
    ]


def _run(lab: Lab, argv: list[str]) -> str:
    done = subprocess.run(
        lab.in_cgroup(argv),
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_S,
    )
    return done.stdout


def _location(headers: Path) -> str:
    found = [
        line.partition(":")[2].strip()
        for line in headers.read_text().splitlines()
        if line.lower().startswith("location:")
    ]
    return found[-1] if found else ""


def _ask(lab: Lab, method: str, address: str, wanted: int) -> str:
    """One small request; the answer's Location."""
    registry = lab.world.checkpoints
    context = ssl.create_default_context(cafile=str(registry.ca))
    login = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    link = http.client.HTTPSConnection(registry.host, timeout=STEP_S, context=context)
    split = urllib.parse.urlsplit(address)
    target = urllib.parse.urlunsplit(("", "", split.path, split.query, ""))
    try:
        link.request(method, target, headers={"Authorization": f"Basic {login}"})
        answer = link.getresponse()
        answer.read()
    finally:
        link.close()
    if answer.status != wanted:
        raise Unusable(f"the registry answers {answer.status} to {method} {split.path}")
    return answer.headers.get("Location", "")
