// The taplo language server that editors bundle (a module without a transport) -> one that speaks over stdio.

const fs = require("node:fs");
const path = require("node:path");

let taplo;
let early = [];

function answer(message) {
  const body = Buffer.from(JSON.stringify(message));
  process.stdout.write(`Content-Length: ${body.length}\r\n\r\n`);
  process.stdout.write(body);
}

const environment = {
  cwd: () => process.cwd(),
  envVar: (name) => process.env[name],
  envVars: () => Object.entries(process.env),
  findConfigFile: () => undefined,
  glob: () => [],
  isAbsolute: (p) => path.isAbsolute(p),
  isWindows: () => process.platform === "win32",
  now: () => new Date(),
  readFile: (p) => fs.promises.readFile(p),
  writeFile: (p, content) => fs.promises.writeFile(p, content),
  stderr: process.stderr,
  stdErrAtty: () => false,
  stdin: process.stdin,
  stdout: process.stdout,
  urlToFilePath: (url) => decodeURIComponent(url).slice("file://".length),
  // There is no network: a schema that is not on the disk is not there.
  fetch: { fetch: () => Promise.reject(new Error("offline")), Headers, Request, Response },
};

let bytes = Buffer.alloc(0);
process.stdin.on("data", (more) => {
  bytes = Buffer.concat([bytes, more]);
  for (;;) {
    const end = bytes.indexOf("\r\n\r\n");
    const length = end < 0 ? null : /content-length: *(\d+)/i.exec(bytes.subarray(0, end).toString());
    if (!length || bytes.length < end + 4 + Number(length[1])) return;
    const start = end + 4;
    const message = JSON.parse(bytes.subarray(start, start + Number(length[1])).toString());
    bytes = bytes.subarray(start + Number(length[1]));
    if (message.method === "exit") process.exit(0);
    if (taplo) taplo.send(message);
    else early.push(message);
  }
});
process.stdin.on("end", () => process.exit(0));

const { TaploLsp } = require(path.resolve(process.argv[2], "node_modules/@taplo/lsp"));
TaploLsp.initialize(environment, { onMessage: answer }).then((server) => {
  taplo = server;
  for (const message of early.splice(0)) taplo.send(message);
});
