"""A coordinator that may lie: ``python -m tests.faults.liable FOLDER`` is `coterie coordinator start`, and more.

The file ``lie`` in its folder says what about, and to whom; without it everything is as it should be.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Serve the federation in the folder."""
    from coterie.cli import main as coterie
    from tests.faults.lies import lie_when_told

    lie_when_told(Path(sys.argv[1]) / "lie")
    sys.argv = ["coterie", "coordinator", "start", sys.argv[1]]
    coterie()


if __name__ == "__main__":
    main()
