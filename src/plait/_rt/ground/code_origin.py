"""Whose code a file is: plait's, the standard library's, or the user's (with what they installed)."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

_PLAIT = str(Path(os.path.abspath(__file__)).parents[2]) + os.sep
_LIBRARY = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_INSTALLED = ("site-packages", "dist-packages")  # below the library's folder, but not of it


def is_plaits(file: str) -> bool:
    """Is it plait's own?"""
    return file.startswith(_PLAIT)


def is_librarys(file: str) -> bool:
    """Is it of the standard library, or frozen or made by it (`<string>` of a dataclass)?"""
    return file.startswith("<") or (file.startswith(_LIBRARY) and not is_installed(file))


def is_installed(file: str) -> bool:
    """Is it of a package that was installed?"""
    return any(name in file for name in _INSTALLED)
