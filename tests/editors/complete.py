"""Every table, list of names and key of the spec language -> what language servers offer and show there.

What they must offer comes from the schema. The documents lie beside it and name it in their first line, as the README says.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import language
from language import ANY
from lsp import Server

CARET = "‸"
LINE = "#:schema ./runjob.schema.json\n"


def document(path, inside):
    """A spec with `inside` in the table that a path leads to, and whether that is an inline table."""
    lead, rest = [path[0]] if path else [], path[1:]
    listed = rest[:1] == [0]
    if rest[:1] in ([0], [ANY]):
        lead, rest = lead + ([] if listed else [ANY]), rest[1:]
    opening, closing = "", ""
    for step in rest:
        if step == 0:
            opening, closing = opening[:-2] + "[{ ", " }]" + closing[2:]
        else:
            opening, closing = f"{opening}{step} = {{ ", " }" + closing
    head = ".".join(lead)
    header = "" if not lead else f"[[{head}]]\n" if listed else f"[{head}]\n"
    return f"{LINE}{header}{opening}{inside}{closing}\n", bool(rest)


def near(text, wanted):
    """Whether a documentation holds the first line of a description."""
    squeezed = lambda t: " ".join(t.replace("\\", "").split())
    return squeezed(wanted.split("\n")[0]) in squeezed(text)


class Asker:
    """Asks one server, and keeps what it did not answer as it must."""

    def __init__(self, server):
        self.server, self.failures, self.keys, self.names, self.hovers = server, [], 0, 0, 0

    def offered(self, marked):
        at, text = marked.index(CARET), marked.replace(CARET, "")
        uri = self.server.open(text)
        answer = self.server.completions(uri, text, at)
        self.server.close(uri)
        # A key that TOML reads as a number is offered in quotes.
        return {label.strip("'"): said for label, said in answer.items()}

    def fail(self, what, marked):
        self.failures.append(f"{self.server.name}: {what} at {CARET} in\n{marked}")

    def expect_keys(self, marked, keys, documented=True):
        offered = self.offered(marked)
        for key, schema in keys.items():
            self.keys += 1
            if key not in offered:
                self.fail(f"does not offer the key `{key}`, but {sorted(offered)},", marked)
            elif documented and not near(offered[key], schema["description"]):
                self.fail(f"says {offered[key]!r} of `{key}`, not {schema['description']!r},", marked)

    def expect_names(self, marked, names):
        offered = self.offered(marked)
        for name in names:
            self.names += 1
            if json.dumps(name) not in offered:
                self.fail(f"does not offer `{name}`, but {sorted(offered)},", marked)


def names_of(schema, node):
    return [name for form in language.alternatives(schema, node) for name in form.get("enum", [])]


def ask_tombi(asker, schema):
    for path, keys in language.tables(schema):
        marked, inline = document(path, CARET)
        asker.expect_keys(marked, keys)
        first = next(iter(keys))
        if not inline:
            asker.expect_keys(document(path, first[:2] + CARET)[0], {first: keys[first]})
        for key, node in keys.items():
            if names := names_of(schema, node):
                asker.expect_names(document(path, f"{key} = {CARET}")[0], names)
                asker.expect_names(document(path, f'{key} = "{CARET}"')[0], names)
            for form in language.alternatives(schema, node):
                if "maxProperties" in form:
                    asker.expect_keys(document(path, f"{key} = {CARET}")[0], form["properties"])


def ask_taplo(asker, schema):
    """Not within lists of tables: there it looks for the key in the schema of the list, whatever the schema says."""
    for path, keys in language.tables(schema):
        marked, inline = document(path, CARET)
        if 0 in path[:-1] or (inline and 0 in path):
            continue
        asker.expect_keys(marked, keys)
        for key, node in keys.items():
            if names := names_of(schema, node):
                asker.expect_names(document(path, f"{key} = {CARET}")[0], names)


def hover_over_specs(asker, schema, skip):
    """Each key of the language that some spec uses, where it first stands."""
    seen = set()
    for path in language.specs():
        spec = language.read(path)
        places = [(use, node) for use, node in language.keys_of(schema, spec) if not skip(schema, use, node)]
        fresh = {language.pattern(schema, use): (use, node) for use, node in reversed(places)}
        fresh = {place: of for place, of in fresh.items() if place not in seen}
        if not fresh:
            continue
        seen |= set(fresh)
        writer = language.Writer(spec, LINE.strip())
        uri = asker.server.open(writer.text)
        if marks := asker.server.marks[uri]:
            asker.failures.append(f"{asker.server.name}: marks {marks} in\n{writer.text}")
        for use, node in fresh.values():
            asker.hovers += 1
            start = writer.starts[tuple(use)]
            said = asker.server.hover(uri, writer.text, start + 1)
            # Beside `[[steps]]` stands what one step is.
            item = language.alternatives(schema, node.get("items", {}))[0] if writer.text[start - 2 : start] == "[[" else {}
            if not any(near(said, of["description"]) for of in (node, item) if "description" in of):
                marked = writer.text[:start] + CARET + writer.text[start:]
                asker.fail(f"shows {said!r}, not {node['description']!r},", marked)
        asker.server.close(uri)


def mark_a_mistake(asker):
    """The control of the hovers above: a wrong key is marked, or this never returns within the server's patience."""
    asker.server.wait_for_a_mark(asker.server.open(LINE + "[rounds]\ncuont = 3\n"))


def of_a_list(schema, use, node):
    """Where taplo explains nothing: within lists, and keys whose value is a list."""
    return any(isinstance(step, int) for step in use) or any(
        "items" in form for form in language.alternatives(schema, node)
    )


def main(tools):
    schema, failures = language.load_schema(), []
    node = [str(tools / "node"), str(Path(__file__).with_name("taplo_lsp.cjs")), str(tools.parent)]
    servers = [
        ("tombi", [str(tools / "tombi"), "lsp", "--offline"], ask_tombi, lambda *_: False),
        ("taplo", node, ask_taplo, of_a_list),
    ]
    for name, command, ask, skip in servers:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(language.SCHEMA, folder)
            with Server(name, command, folder) as server:
                asker = Asker(server)
                ask(asker, schema)
                hover_over_specs(asker, schema, skip)
                mark_a_mistake(asker)
        print(f"{name}: asked for {asker.keys} keys and {asker.names} names to be offered, and {asker.hovers} keys to be explained")
        failures += asker.failures
        if min(asker.keys, asker.hovers) < 30 or asker.names < 15:
            failures.append(f"{name} was asked for too little")
    if failures:
        raise SystemExit("\n".join([f"{len(failures)} failures", *failures]))
    print("both offer and explain all of them")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
