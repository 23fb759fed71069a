"""buildah's storage in our cache, and the commands that work on it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.devnode.instance import cache_root
from deploy.devnode.rootfs import LEASHED, BuildFailed

_MOST: Final = 300  # images, each step of a build being one: some 8 GB


@dataclass(frozen=True, slots=True)
class Storage:
    """Images and layers between builds, apart from the machine's own."""

    folder: Path

    @classmethod
    def usual(cls) -> Storage:
        """The one in the cache, for every checkout."""
        return cls(cache_root() / "images-build")

    def log(self, name: str) -> Path:
        """What ``name``'s commands wrote."""
        return self.folder / f"{name}.log"

    def has(self, image: str) -> bool:
        """Whether ``image`` is there."""
        argv = [*self._argv, "inspect", "--type", "image", image]
        return not subprocess.run(argv, check=False, capture_output=True).returncode

    def buildah(self, argv: Sequence[str], log: str) -> None:
        """Run a command of buildah; raises as ``run``."""
        self.run([*LEASHED, *self._argv, *argv], log)

    def run(self, argv: Sequence[str], log: str) -> None:
        """Run ``argv``, its output into ``log``.

        Raises:
            BuildFailed: it ended with another status than 0, or is not installed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.log(log)
        try:
            with path.open("a") as sink:
                subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        except (subprocess.CalledProcessError, OSError) as cause:
            last = path.read_text(errors="replace").splitlines()[-6:]
            raise BuildFailed(
                f"the image {log} could not be made; {path} ends:\n" + "\n".join(last)
            ) from cause

    def keep_small(self) -> None:
        """Forget everything, where builds have left too much: buildah keeps each step of each build for good."""
        if sum(1 for one in self.folder.glob("storage/overlay-images/*") if one.is_dir()) > _MOST:
            self._forget_containers()
            gone = self.folder / "storage.gone"
            shutil.rmtree(gone, ignore_errors=True)
            (self.folder / "storage").rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """A block whose working containers are gone afterwards, mounts too, and those of a build that was killed."""
        try:
            yield
        finally:
            self._forget_containers()

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A folder for the block."""
        folder = self.folder / f"{name}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _forget_containers(self) -> None:
        subprocess.run([*self._argv, "rm", "--all"], check=False, capture_output=True)

    @property
    def _argv(self) -> list[str]:
        return [
            "buildah",
            "--root",
            str(self.folder / "storage"),
            "--runroot",
            str(self.folder / "run"),
        ]
