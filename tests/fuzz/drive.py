"""schemathesis against a live control plane: ``python -m tests.fuzz.drive FOLDER CASES SEED``.

It asks as an account whose name nobody can guess, so that no case changes or removes it. Prints one line of JSON at
the end: how many cases there were, and which run failed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import sys
from pathlib import Path
from typing import Any, Final

from tests.fakes.api_process import PASSWORD, ApiProcess, running

CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
LOGOUT: Final = "/config/user/logout"
RUN_S: Final = 1500.0  # minutes even where the machine is slow or busy
_GENERATED: Final = re.compile(r"(\d+) generated")
_SIDE_BY_SIDE: Final = 2


async def main(folder: Path, cases: int, seed: int) -> dict[str, Any]:
    """Run until there were ``cases``; what came of it."""
    async with running(folder / "data") as api:
        found = await _run(api, folder, "logout", seed, "-n", "20", "--include-path", LOGOUT)
        failed = list(found[1])
        total = found[0]
        seeds = itertools.count(seed)
        phases = "examples,coverage,fuzzing"
        while total < cases and not failed:
            share = max(1, (cases - total) // (_SIDE_BY_SIDE * 100))
            options = ["--phases", phases, "-n", str(min(share, 250)), "--exclude-path", LOGOUT]
            turn = [
                _run(api, folder, f"run-{number}", number, *options)
                for number in itertools.islice(seeds, _SIDE_BY_SIDE)
            ]
            for generated, problems in await asyncio.gather(*turn):
                total += generated
                failed += problems
            phases = "fuzzing"  # the other ones give the same cases again
        log = (folder / "api.log").read_text()
        if "Traceback" in log:
            failed.append(log[log.index("Traceback") - 300 :][:3000])
        return {"cases": total, "failed": failed}


async def _run(
    api: ApiProcess, folder: Path, name: str, seed: int, *options: str
) -> tuple[int, list[str]]:
    """One run of schemathesis: how many cases, and what it complained of."""
    token = await _account(api)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(CONFIG), "run", f"http://127.0.0.1:{api.http_port}/openapi.json"),
        *("-H", f"Authorization: Bearer {token}", "--seed", str(seed), "--no-shrink"),
        *("--continue-on-failure", "--request-timeout", "30", "--no-color", *options),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_S):
            output = (await process.communicate())[0].decode()
    except TimeoutError:
        process.kill()
        await process.wait()
        return 0, [f"{name} took longer than {RUN_S:.0f} s"]
    (folder / f"{name}.log").write_text(output)
    generated = _GENERATED.search(output)
    count = int(generated[1]) if generated else 0
    if process.returncode == 0 and count:
        return count, []
    start = max(output.find(" FAILURES "), output.find(" ERRORS "), 0)
    return count, [f"{name}, seed {seed}:\n{output[start : start + 6000]}"]


async def _account(api: ApiProcess) -> str:
    """A new administrator's token."""
    name = f"fuzz-{secrets.token_hex(12)}"
    await api.call(
        "POST",
        "/config/user/create",
        {"username": name, "password": PASSWORD, "role": "administrator"},
    )
    answer = await api.call("POST", "/config/user/login", {"username": name, "password": PASSWORD})
    token: str = answer["token"]
    return token


if __name__ == "__main__":
    done = asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
    sys.stdout.write(json.dumps(done) + "\n")
    sys.exit(1 if done["failed"] else 0)
