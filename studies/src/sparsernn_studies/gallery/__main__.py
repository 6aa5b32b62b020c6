"""`python -m sparsernn_studies.gallery NAME`: the table of one model, and results/gallery/NAME.json."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from ..data import data_folder
from ..errors import StudyError
from .frame import show
from .packages import NAMES

USAGE = f"python -m sparsernn_studies.gallery NAME [FOLDER], with NAME one of {', '.join(NAMES)}."


def main(arguments: list[str]) -> int:
    """Make one model's table; a package that is not there is named."""
    if not arguments or arguments[0] not in NAMES or len(arguments) > 2:
        print(USAGE, file=sys.stderr)
        return 2
    folder = Path(arguments[1] if len(arguments) == 2 else "results")
    made = import_module(f"{__package__}.{NAMES[arguments[0]]}")
    try:
        show(arguments[0], made.subjects(data_folder(None)), folder / "gallery")
    except (ImportError, StudyError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
