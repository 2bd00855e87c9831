// Runs Perfetto's trace processor as its web page ships it (WebAssembly), and speaks its protocol on stdin and stdout:
// a message is its length in four bytes, little endian, and a TraceProcessorRpcStream. Argument: the page's folder.
"use strict";
const fs = require("fs");
const path = require("path");
const folder = process.argv[2];
const file = (name) => fs.readFileSync(path.join(folder, path.basename(String(name))));

// What the page's engine finds in a browser's worker.
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = function () {};
globalThis.importScripts = () => {};
globalThis.location = { href: "file://" + path.join(folder, "engine_bundle.js") };
globalThis.fetch = async (name) => new Response(file(name), { headers: { "Content-Type": "application/wasm" } });
globalThis.XMLHttpRequest = class {
  open(_, name) {
    this.name = name;
  }
  send() {
    this.status = 200;
    this.response = new Uint8Array(file(this.name));
  }
};
console.log = console.error;
const versions = process.versions;
Object.defineProperty(process, "versions", { value: {}, configurable: true });
(0, eval)(file("engine_bundle.js").toString());
Object.defineProperty(process, "versions", { value: versions });

function send(buffer) {
  for (let at = 0; at < buffer.length; ) {
    try {
      at += fs.writeSync(1, buffer, at);
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

const port = {
  postMessage(bytes) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    send(length);
    send(Buffer.from(bytes));
  },
};
self.onmessage({ data: port });

let waiting = Buffer.alloc(0);
function take(chunk) {
  waiting = Buffer.concat([waiting, chunk]);
  while (waiting.length >= 4 && waiting.length >= 4 + waiting.readUInt32LE(0)) {
    const end = 4 + waiting.readUInt32LE(0);
    port.onmessage({ data: new Uint8Array(waiting.subarray(4, end)) });
    waiting = waiting.subarray(end);
  }
}
setTimeout(() => process.stdin.on("data", take).on("end", () => process.exit(0)), 0); // the program is set up by then
