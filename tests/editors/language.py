"""The schema -> the tables, keys and names of the spec language; a spec -> the keys of the language in it, and back to text.

Nothing here knows a key by name: a key that the schema gains is linted, completed and explained without a change.
"""

import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "schema" / "runjob.schema.json"
FOLDERS = ["specs", "tests/specs/good"]
ANY = "some_name"  # Stands in a path for a name that the author of a spec chooses.


def specs():
    """Every spec that editors must accept. A folder without any is an error."""
    found = []
    for folder in FOLDERS:
        paths = sorted((ROOT / folder).glob("*.toml"))
        if not paths:
            raise SystemExit(f"{folder} has no specs")
        found += paths
    return found


def load_schema():
    return json.loads(SCHEMA.read_text())


def alternatives(schema, node):
    """A schema and the alternatives in it, with references resolved."""
    if "$ref" in node:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
    out = [node]
    for alternative in node.get("anyOf", []):
        out += alternatives(schema, alternative)
    return out


def tables(schema):
    """Every table of the language: (the path to it, its keys with their schemas). An index stands for a list's item."""
    out = []

    def walk(node, path, within):
        reference = node.get("$ref")
        if reference in within:
            return
        within = within | {reference} if reference else within
        for form in alternatives(schema, node):
            if "properties" in form:
                out.append((path, form["properties"]))
                for key, value in form["properties"].items():
                    walk(value, path + [key], within)
            if isinstance(form.get("additionalProperties"), dict):
                walk(form["additionalProperties"], path + [ANY], within)
            if isinstance(form.get("items"), dict):
                walk(form["items"], path + [0], within)

    walk(schema, [], frozenset())
    return out


def keys_of(schema, spec):
    """The keys of the language in a spec, as the paths to them: not the names that its author chose."""
    out = []

    def walk(nodes, value, path):
        forms = [form for node in nodes for form in alternatives(schema, node)]
        if isinstance(value, dict):
            for key, inner in value.items():
                known = [form["properties"][key] for form in forms if key in form.get("properties", {})]
                if known:
                    out.append((path + [key], known[0]))
                more = [form.get("additionalProperties") for form in forms]
                walk(known or [m for m in more if isinstance(m, dict)], inner, path + [key])
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk([form["items"] for form in forms if isinstance(form.get("items"), dict)], inner, path + [index])

    walk([schema], spec, [])
    return out


def pattern(schema, path):
    """A path without what the author of a spec chose: the same key of the same table has one pattern."""
    nodes, out = [schema], []
    for step in path:
        forms = [form for node in nodes for form in alternatives(schema, node)]
        if isinstance(step, int):
            nodes, step = [form["items"] for form in forms if isinstance(form.get("items"), dict)], 0
        elif known := [form["properties"][step] for form in forms if step in form.get("properties", {})]:
            nodes = known
        else:
            more = [form.get("additionalProperties") for form in forms]
            nodes, step = [m for m in more if isinstance(m, dict)], ANY
        out.append(step)
    return tuple(out)


def read(path):
    return tomllib.loads(path.read_text())


class Writer:
    """A spec as text, one `[table]` or `[[table]]` deep, and where each key starts in it."""

    def __init__(self, spec, first_line):
        self.text, self.starts = first_line + "\n", {}
        headed = lambda value: isinstance(value, dict) or (isinstance(value, list) and value and all(isinstance(v, dict) for v in value))
        for key, value in spec.items():
            if not headed(value):
                self._entry([key], value)
        for key, value in spec.items():
            if headed(value):
                for index, table in enumerate(value if isinstance(value, list) else [value]):
                    path = [key, index] if isinstance(value, list) else [key]
                    self.text += "[[" if isinstance(value, list) else "["
                    self.starts.setdefault((key,), len(self.text))
                    self.text += name(key) + ("]]\n" if isinstance(value, list) else "]\n")
                    for inner, of in table.items():
                        self._entry(path + [inner], of)

    def _entry(self, path, value):
        self._key(path)
        self._value(path, value)
        self.text += "\n"

    def _key(self, path):
        self.starts[tuple(path)] = len(self.text)
        self.text += name(path[-1]) + " = "

    def _value(self, path, value):
        if isinstance(value, (dict, list)):
            table = isinstance(value, dict)
            self.text += "{ " if table else "["
            for at, (key, inner) in enumerate(value.items() if table else enumerate(value)):
                self.text += ", " if at else ""
                if table:
                    self._key(path + [key])
                self._value(path + [key], inner)
            self.text += " }" if table else "]"
        elif isinstance(value, bool):
            self.text += "true" if value else "false"
        elif isinstance(value, (int, float)):
            self.text += repr(value)
        else:
            self.text += json.dumps(str(value))


def name(key):
    """A key as TOML writes it."""
    return key if key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key) else json.dumps(key)
