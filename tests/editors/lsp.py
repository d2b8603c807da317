"""A document with a caret in it -> what a language server offers, shows and marks there.

It does what an editor does, over stdio: initialize, open, ask, close.
"""

import json
import os
import queue
import subprocess
import threading
from pathlib import Path


class Failure(Exception):
    """What no editor could work with: no answer, an error, or an end."""


class Server:
    """A running language server; `root` is its only folder, its home, and where its documents are said to lie."""

    def __init__(self, name, command, root, patience=60.0):
        self.name, self.root, self.patience = name, Path(root).resolve(), patience
        self.serial = 0
        self.marks = {}
        self.stderr = open(self.root / f"{name}.stderr", "w+b")
        self.process = subprocess.Popen(
            command,
            cwd=self.root,
            env=homeless(self.root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
        )
        self.incoming = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        folder = {"uri": self.root.as_uri(), "name": self.root.name}
        formats = ["markdown", "plaintext"]
        item = {"snippetSupport": True, "documentationFormat": formats}
        capabilities = {
            "workspace": {"configuration": True, "workspaceFolders": True},
            "textDocument": {
                "completion": {"completionItem": item},
                "hover": {"contentFormat": formats},
                "publishDiagnostics": {},
            },
        }
        params = {"processId": None, "rootUri": folder["uri"], "workspaceFolders": [folder], "capabilities": capabilities}
        self.ask("initialize", params)
        self.tell("initialized", {})
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.stderr.close()

    def open(self, text):
        """Opens a document, waits until the server has marked its mistakes, and returns its name."""
        self.serial += 1
        uri = (self.root / f"spec{self.serial}.toml").as_uri()
        self.tell("textDocument/didOpen", {"textDocument": {"uri": uri, "languageId": "toml", "version": 1, "text": text}})
        while uri not in self.marks:
            self._next("textDocument/didOpen", text)
        return uri

    def wait_for_a_mark(self, uri):
        """Waits until a mistake of a document is marked: some servers mark those of the schema after the others."""
        while not self.marks[uri]:
            self._next("textDocument/publishDiagnostics", uri)

    def close(self, uri):
        self.tell("textDocument/didClose", {"textDocument": {"uri": uri}})

    def completions(self, uri, text, at):
        """The keys and values that are offered at a character of a text: label -> all that is said about it."""
        answer = self.ask("textDocument/completion", self._place(uri, text, at), text)
        items = answer["items"] if isinstance(answer, dict) else answer or []
        offered = {}
        for item in items:
            offered[item["label"]] = offered.get(item["label"], "") + words(item.get("documentation"))
        return offered

    def hover(self, uri, text, at):
        """What is shown beside a character of a text."""
        answer = self.ask("textDocument/hover", self._place(uri, text, at), text)
        return words(answer["contents"]) if answer else ""

    def _place(self, uri, text, at):
        line = text.count("\n", 0, at)
        position = {"line": line, "character": at - (text.rfind("\n", 0, at) + 1)}
        return {"textDocument": {"uri": uri}, "position": position}

    def tell(self, method, params):
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method, params, text=""):
        self.serial += 1
        serial = self.serial
        self._write({"jsonrpc": "2.0", "id": serial, "method": method, "params": params})
        while True:
            message = self._next(method, text)
            if message.get("id") == serial and "method" not in message:
                if "error" in message:
                    raise Failure(f"{self.name}: {method}: {message['error']}\n{text}")
                return message["result"]

    def _next(self, method, text):
        try:
            message = self.incoming.get(timeout=self.patience)
        except queue.Empty:
            raise Failure(f"{self.name}: no answer to {method} within {self.patience} s of\n{text}") from None
        if message is None:
            self.stderr.seek(0)
            said = self.stderr.read().decode(errors="replace")[-2000:]
            raise Failure(f"{self.name}: ended before it answered {method} of\n{text}\n{said}")
        if "method" in message and "id" in message:
            items = (message.get("params") or {}).get("items", [])
            asked = message["method"] == "workspace/configuration"
            self._write({"jsonrpc": "2.0", "id": message["id"], "result": [None] * len(items) if asked else None})
        elif message.get("method") == "textDocument/publishDiagnostics":
            self.marks[message["params"]["uri"]] = message["params"]["diagnostics"]
        return message

    def _write(self, message):
        body = json.dumps(message).encode()
        try:
            self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # The reader sees the end, and says before which answer it came.

    def _read(self):
        stream = self.process.stdout
        while True:
            length = None
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if length is None:
                break
            self.incoming.put(json.loads(stream.read(length)))
        self.incoming.put(None)


def homeless(folder):
    """The environment of a person who has configured nothing."""
    home = Path(folder).resolve()
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("TOMBI_", "TAPLO_", "XDG_"))}, **own}


def words(content):
    """The text of a documentation or of a hover, in any of the forms that the protocol has for it."""
    if isinstance(content, list):
        return "\n".join(map(words, content))
    return content.get("value", "") if isinstance(content, dict) else content or ""
