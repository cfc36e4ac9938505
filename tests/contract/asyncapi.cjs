// Reads AsyncAPI documents with the official parser and prints what it found in each: `node asyncapi.cjs FILE...`
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

async function main(files) {
  const parser = new Parser();
  let right = files.length > 0;
  for (const file of files) {
    const { document, diagnostics } = await parser.parse(readFileSync(file, "utf8"));
    // 0 is an error, 1 a warning; 2 says what else could be told: a licence, a contact, tags.
    const serious = diagnostics.filter((diagnostic) => diagnostic.severity < 2);
    for (const { code, message, path } of serious) console.error(`${file}: ${code}: ${message} at ${path.join("/")}`);
    if (serious.length > 0 || document === undefined) {
      right = false;
      continue;
    }
    const messages = document.components().messages().all();
    console.log(JSON.stringify({
      version: document.version(),
      addresses: document.channels().all().map((channel) => channel.address()),
      events: messages.map((message) => message.title()),
      examples: messages.map((message) => message.examples().all().length),
    }));
  }
  return right;
}

main(process.argv.slice(2)).then((right) => process.exit(right ? 0 : 1));
