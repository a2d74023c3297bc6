"""Which operation a path names. An id that is none names nothing."""

import re
from collections.abc import Mapping, Sequence

from api.operation import Operation
from api.reading import path_id


class Table:
    """The paths of the API, those without a part in braces first."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in operations:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        self._fixed = {path: found for path, found in by_path.items() if "{" not in path}
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
            parts = match.groupdict()
            if "id" in parts:
                whole = path_id(parts["id"])
                if whole is None:
                    return None
                parts["id"] = whole
            return found, parts
        return None


def _pattern(path: str) -> re.Pattern[str]:
    """`{name}` is one part of the path."""
    pieces = re.split(r"\{(\w+)\}", path)
    made = (re.escape(piece) if at % 2 == 0 else f"(?P<{piece}>[^/]+)" for at, piece in enumerate(pieces))
    return re.compile("".join(made))
