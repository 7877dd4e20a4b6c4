"""OmegaConf's pickled configurations as plain containers, without OmegaConf and without calling anything.

OmegaConf pickles a tree of objects (omegaconf 2.x: dictconfig.py, listconfig.py, nodes.py): containers keep
their children in `_content`, leaves their value in `_val`; the rest (`_metadata`, `_parent`, flags) says
nothing about the values. The reader of checkpoints makes an `OmegaNode` of each, `plain` the tree of values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rustasr.errors import ModelFileError

_CONTAINERS = ("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig")
_LEAVES = tuple(
    f"omegaconf.nodes.{kind}Node"
    for kind in ("Any", "String", "Integer", "Float", "Boolean", "Path", "Bytes")
)
CLASSES = (*_CONTAINERS, *_LEAVES, "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata")
_MAX_NODES, _MAX_DEPTH = 1 << 14, 32


@dataclass(eq=False)
class OmegaNode:
    """One of `CLASSES` with the attributes that the pickle gives it."""

    kind: str
    state: dict[Any, Any] = field(default_factory=dict)


def plain(value: Any, where: str) -> Any:
    """Dictionaries, lists and scalars for a tree of nodes (or of those themselves).

    A tree that refers to itself, or is not made of values, is a ModelFileError.
    """
    return _Plain(where).convert(value, 0)


class _Plain:
    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0

    def convert(self, value: Any, depth: int) -> Any:
        self.count += 1
        if self.count > _MAX_NODES or depth > _MAX_DEPTH:
            raise ModelFileError(
                f"{self.where}: a configuration of more than {_MAX_NODES} values or {_MAX_DEPTH} levels"
            )
        if isinstance(value, OmegaNode):
            value = self._inner(value)
        if isinstance(value, dict):
            return {key: self.convert(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.convert(item, depth + 1) for item in value]
        if value is None or isinstance(value, (str, int, float)):
            return value
        raise ModelFileError(f"{self.where}: a configuration holds a {type(value).__name__}")

    def _inner(self, node: OmegaNode) -> Any:
        key = "_content" if node.kind in _CONTAINERS else "_val"
        if key not in node.state:
            raise ModelFileError(f"{self.where}: a configuration holds a {node.kind} without {key}")
        inner = node.state[key]
        if isinstance(inner, OmegaNode):
            raise ModelFileError(f"{self.where}: a configuration holds a {node.kind} in a {inner.kind}")
        return inner
