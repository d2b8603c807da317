"""A language server over stdio: a document with a caret in it -> what the server offers, shows and marks there.

It does what an editor does, in the order in which an editor does it: initialize, open, ask, close, and shut down.
"""

import json
import os
import subprocess
import threading
import queue
from pathlib import Path

CARET = "‸"
KINDS = {"completion": "textDocument/completion", "hover": "textDocument/hover"}


class Failure(Exception):
    """What a server did that no editor could work with."""


class Server:
    """A running language server whose only folder is `root`."""

    def __init__(self, command, root, patience=20.0):
        self.name = Path(command[0]).name
        self.patience = patience
        self.root = Path(root).resolve()
        self.serial = 0
        self.diagnostics = {}
        self.log = []
        home = self.root / ".home"
        home.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            command,
            cwd=self.root,
            env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_CONFIG_HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open('/tmp/ed/err','wb'),
        )
        self.incoming = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        folder = {"uri": self.root.as_uri(), "name": self.root.name}
        self.capabilities = self.ask(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": folder["uri"],
                "workspaceFolders": [folder],
                "capabilities": {
                    "workspace": {"configuration": True, "workspaceFolders": True},
                    "textDocument": {
                        "completion": {
                            "completionItem": {
                                "snippetSupport": True,
                                "documentationFormat": ["markdown", "plaintext"],
                                "resolveSupport": {"properties": ["documentation", "detail"]},
                            }
                        },
                        "hover": {"contentFormat": ["markdown", "plaintext"]},
                        "publishDiagnostics": {},
                        "diagnostic": {},
                    },
                },
            },
        )["capabilities"]
        self.tell("initialized", {})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def tell(self, method, params):
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method, params):
        self.serial += 1
        self._write({"jsonrpc": "2.0", "id": self.serial, "method": method, "params": params})
        while True:
            message = self._next(method)
            if message.get("id") == self.serial and "method" not in message:
                if "error" in message:
                    raise Failure(f"{self.name}: {method}: {message['error']}")
                return message["result"]

    def _next(self, why):
        try:
            message = self.incoming.get(timeout=self.patience)
        except queue.Empty:
            raise Failure(f"{self.name}: no answer to {why} within {self.patience} s") from None
        if message is None:
            raise Failure(f"{self.name}: ended before it answered {why}")
        if "method" in message and "id" in message:
            items = (message.get("params") or {}).get("items", [])
            result = [None] * len(items) if message["method"] == "workspace/configuration" else None
            self._write({"jsonrpc": "2.0", "id": message["id"], "result": result})
        elif message.get("method") == "textDocument/publishDiagnostics":
            self.diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "method" in message:
            self.log.append(message)
        return message

    def _write(self, message):
        body = json.dumps(message).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

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
