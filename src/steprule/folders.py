"""Where steprule keeps files of its own on the user's machine."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder for files that can be made or fetched again; it may not exist yet, and is not created here.

    It is `$STEPRULE_CACHE` where that is set and not empty, else the operating system's folder for a user's caches.
    """
    chosen = os.environ.get("STEPRULE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    # Imported here so that `import steprule` does not pay for it.
    import platformdirs

    return platformdirs.user_cache_path("steprule")
