"""Checks a document against the JSON Schema of transcripts."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from typing import Any

SCHEMA = json.loads(files("rustasr").joinpath("schema/transcript-1.schema.json").read_text(encoding="utf-8"))
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def violations(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """The part of JSON Schema that ours uses; an unknown keyword fails, so that none is overlooked."""
    known = {"$schema", "$id", "$defs", "title", "description", "$ref", "const", "type", "required"}
    known |= {"additionalProperties", "properties", "items", "minimum", "maximum"}
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        return violations(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]], where)
    found = []
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: {value!r} is not {schema['const']!r}")
    kinds = schema.get("type", list(TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, TYPES[kind]) and not isinstance(value, bool) for kind in kinds):
        return [*found, f"{where}: {value!r} is not {kinds}"]
    if isinstance(value, (int, float)):
        inside = schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
        found += [] if inside else [f"{where}: {value} out of range"]
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{where}: no {key}" for key in schema.get("required", ()) if key not in value]
        if schema.get("additionalProperties") is False:
            found += [f"{where}: unexpected {key}" for key in value if key not in properties]
        for key, inner in value.items():
            found += violations(inner, properties.get(key, {}), f"{where}.{key}")
    if isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            found += violations(inner, schema["items"], f"{where}[{index}]")
    return found
