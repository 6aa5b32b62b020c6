"""Several files at once: all of them are written, or none is touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_all(folder: str | Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write `contents`, by file name, into `folder`, which is made if need be; a name may lie in a folder of it.

    Raises OSError with nothing changed.
    """
    folder = Path(folder)
    made = next((p for p in [*reversed(folder.parents), folder] if not p.exists()), None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in contents:
            if (folder / name).exists() and not (folder / name).is_file():
                raise FileExistsError(f"{folder / name} is no file: give another folder or name.")
            for inside in (folder / name).parents:
                if inside.exists() and not inside.is_dir():
                    raise NotADirectoryError(f"{inside} is no folder: give another folder or name.")
        with tempfile.TemporaryDirectory(prefix=".sparsernn-", dir=folder) as aside:
            for name, content in contents.items():
                (Path(aside) / name).parent.mkdir(parents=True, exist_ok=True)
                with open(Path(aside) / name, "wb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)
                    file.flush()
                    os.fsync(file.fileno())
            for name in contents:  # all the room that is needed is taken: what is left is to give them their names
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(aside) / name, folder / name)
    except OSError:
        if made is not None and made.exists():
            shutil.rmtree(made)
        raise
    return [folder / name for name in contents]
