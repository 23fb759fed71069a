"""Holds memory and ticks: ``tick N <monotonic s>`` 100 times a second, so a pause is the largest gap.

Environment: HOG_MIB (default 64); HOG_MODE full (random), half (each page half random, half zero) or zero;
HOG_HZ ticks a second (default 100); HOG_SUM_EVERY_S prints checksums at intervals (default 0: only when asked).
SIGUSR1 prints ``sum <crc32 of all memory, hex> <tick>`` without stopping the ticks. ``ready`` comes when filled.
SIGUSR2 changes HOG_CHANGE_PERCENT (default 5) of the pages, at random, and prints ``changed <pages> <tick>``.
"""

import os
import signal
import threading
import time
import zlib

PAGE = 4096
STEP = 1 << 20


def fill(mode: str, mib: int) -> bytearray:
    memory = bytearray(mib * STEP)
    if mode == "zero":
        return memory
    for start in range(0, len(memory), STEP):
        block = os.urandom(STEP)
        if mode == "half":
            for page in range(0, STEP, PAGE):
                memory[start + page : start + page + PAGE // 2] = block[page : page + PAGE // 2]
        else:
            memory[start : start + STEP] = block
    return memory


def say(line: str) -> None:
    os.write(1, (line + "\n").encode())


def checksums(memory: bytearray, asked: threading.Event, tick: list[int], every_s: float) -> None:
    while True:
        asked.wait(every_s or None)
        asked.clear()
        crc = 0
        view = memoryview(memory)
        for start in range(0, len(memory), 16 * STEP):
            crc = zlib.crc32(view[start : start + 16 * STEP], crc)
        say(f"sum {crc:08x} {tick[0]}")


def changes(memory: bytearray, asked: threading.Event, tick: list[int], percent: float) -> None:
    while True:
        asked.wait()
        asked.clear()
        dice = memoryview(os.urandom(len(memory) // PAGE * 4)).cast("I")
        chosen = [page for page, die in enumerate(dice) if die < percent / 100 * (1 << 32)]
        for page in chosen:
            memory[page * PAGE : page * PAGE + 16] = os.urandom(16)
        say(f"changed {len(chosen)} {tick[0]}")


def main() -> None:
    mib = int(os.environ.get("HOG_MIB", "64"))
    memory = fill(os.environ.get("HOG_MODE", "half"), mib)
    pause_s = 1 / float(os.environ.get("HOG_HZ", "100"))
    every_s = float(os.environ.get("HOG_SUM_EVERY_S", "0"))
    tick, asked = [0], threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: asked.set())
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    work = threading.Thread(target=checksums, args=(memory, asked, tick, every_s), daemon=True)
    work.start()
    other = threading.Event()
    signal.signal(signal.SIGUSR2, lambda *_: other.set())
    percent = float(os.environ.get("HOG_CHANGE_PERCENT", "5"))
    change = threading.Thread(target=changes, args=(memory, other, tick, percent), daemon=True)
    change.start()
    say(f"ready {mib}")
    while True:
        tick[0] += 1
        say(f"tick {tick[0]} {time.monotonic():.4f}")
        time.sleep(pause_s)


main()
