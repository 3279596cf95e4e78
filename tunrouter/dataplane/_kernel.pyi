"""The compiled kernel's module, made by build.py."""

from typing import Any

ffi: Any
lib: Any
