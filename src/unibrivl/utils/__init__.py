"""Small things every layer may use: the guard for optional dependencies."""

from unibrivl.utils.optional import require

__all__ = ["require"]
