// Reads AsyncAPI documents with the official parser and prints what it says of each: `node asyncapi.mjs FILE...`
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
let wrong = 0;
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(await readFile(file, "utf8"));
  // 0 error, 1 warning, 2 information: "use the newest version", "say who made it".
  const serious = diagnostics.filter((diagnostic) => diagnostic.severity < 2);
  for (const { code, message, path } of serious) console.error(`${file}: ${code}: ${message} at ${path.join("/")}`);
  if (serious.length > 0 || document === undefined) {
    wrong += 1;
    continue;
  }
  console.log(JSON.stringify({
    version: document.version(),
    channels: document.channels().all().map((channel) => channel.address()),
    messages: document.components().messages().all().map((message) => message.title()),
    examples: document.components().messages().all().map((message) => message.examples().all().length),
  }));
}
process.exit(wrong === 0 ? 0 : 1);
