"""Which operation a path names."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from api.operation import Operation

#: Of a path that is compared with those that exist.
MAX_PATH_CHARS = 100


class Table:
    """The paths of the API, those without a part in braces first."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        self._fixed = {path: found for path, found in by_path.items() if "{" not in path}
        self._templates = [path for path in by_path if "{" in path]
        self._open = [(_pattern(path), found) for path, found in by_path.items() if "{" in path]

    def find(self, path: str) -> tuple[Mapping[str, Operation], Mapping[str, str]] | None:
        """The operations at the path, by method, and the path's parts; None where there is nothing."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, {}
        for pattern, found in self._open:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            return found, match.groupdict()
        return None

    def nearest(self, path: str) -> str | None:
        """The path that may have been meant; None where none is near."""
        known = [*self._fixed, *self._templates]
        return next(iter(get_close_matches(path[:MAX_PATH_CHARS], known, n=1, cutoff=0.8)), None)


def _pattern(path: str) -> re.Pattern[str]:
    """`{name}` is one part of the path."""
    pieces = re.split(r"\{(\w+)\}", path)
    made = (re.escape(piece) if at % 2 == 0 else f"(?P<{piece}>[^/]+)" for at, piece in enumerate(pieces))
    return re.compile("".join(made))
