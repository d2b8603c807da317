"""Every spec of the repository -> both linters accept it; every key of the language in them, misspelt -> both refuse it.

The linters see what an editor sees: the first line of the file, and nothing of this repository's configuration.
"""

import copy
import re
import shutil
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import language
from lsp import homeless

FIRST_LINE = re.compile(r"#:schema (\S+)\n")


def misspelt(key, known):
    """The key with one letter changed, and no key of the same table."""
    for at in range(len(key) // 2, len(key)):
        for letter in string.ascii_lowercase:
            other = key[:at] + letter + key[at + 1 :]
            if other not in known:
                return other
    raise SystemExit(f"`{key}` cannot be misspelt")


class Linter:
    def __init__(self, name, command, folder, files_in):
        self.name, self.command, self.folder, self.files_in = name, command, folder, files_in

    def lint(self, paths, cwd):
        """Whether all are accepted, how many files it says it looked at, and what it says."""
        done = subprocess.run(
            self.command + [str(p) for p in paths],
            cwd=cwd,
            env=homeless(self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{self.name} ended with {done.returncode}:\n{said}")
        counted = sum(int(n) for n in re.findall(self.files_in, said))
        if counted != len(paths):
            raise SystemExit(f"{self.name} looked at {counted} files of {len(paths)}:\n{said}")
        return done.returncode == 0, said


def main(tools):
    schema, paths = language.load_schema(), language.specs()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copy(language.SCHEMA, folder / "runjob.schema.json")
        linters = [
            Linter("tombi", [str(tools / "tombi"), "lint", "--offline"], folder, r"(\d+) files? (?:linted successfully|failed)"),
            Linter("taplo", [str(tools / "taplo"), "check"], folder, r"found files total=(\d+) excluded=0"),
        ]
        failures = []

        for path in paths:
            line = FIRST_LINE.match(path.read_text())
            if not line or (path.parent / line[1]).resolve() != language.SCHEMA:
                failures.append(f"{path.relative_to(language.ROOT)}: its first line names no schema, or another one")
        for linter in linters:
            accepted, said = linter.lint([p.relative_to(language.ROOT) for p in paths], language.ROOT)
            if not accepted:
                failures.append(f"{linter.name} refuses a spec:\n{said}")
            print(f"{linter.name}: {len(paths)} specs" + (" accepted" if accepted else ""))

        # One use of each key, in a spec that is accepted when the key is not misspelt.
        uses = {}
        for path in paths:
            spec = language.read(path)
            for place, _ in language.keys_of(schema, spec):
                uses.setdefault(language.pattern(schema, place), (path, spec, place))
        right, wrong = folder / "right.toml", folder / "wrong.toml"
        line, controls = "#:schema ./runjob.schema.json", set()
        for place in sorted(uses, key=str):
            path, spec, use = uses[place]
            if path not in controls:
                controls.add(path)
                right.write_text(language.Writer(spec, line).text)
                if language.read(right) != spec and "nan" not in right.read_text():
                    failures.append(f"{path.name}: written again it is another spec")
                for linter in linters:
                    accepted, said = linter.lint([right.name], folder)
                    if not accepted:
                        failures.append(f"{linter.name} refuses {path.name}, written again:\n{said}")
            mutant = copy.deepcopy(spec)
            table = mutant
            for step in use[:-1]:
                table = table[step]
            word = misspelt(use[-1], {p[-1] for p in uses if p[:-1] == place[:-1]} | set(table))
            table[word] = table.pop(use[-1])
            wrong.write_text(language.Writer(mutant, line).text)
            for linter in linters:
                accepted, said = linter.lint([wrong.name], folder)
                if accepted or word not in said:
                    how = "accepts" if accepted else "refuses, but not for its key,"
                    failures.append(f"{linter.name} {how} `{word}` for {'.'.join(map(str, use))} of {path.name}:\n{said}")
        all_keys = sum(len(keys) for _, keys in language.tables(schema))
        print(f"{len(uses)} keys of the schema's {all_keys} stand in these specs; each was misspelt once, in {len(controls)} specs")
        if len(uses) < 60:
            failures.append(f"only {len(uses)} keys were misspelt")
        if failures:
            raise SystemExit("\n".join([f"{len(failures)} failures", *failures]))
        print("both refuse each of them by name, and accept the same specs without")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
