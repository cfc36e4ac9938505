// Receives as a webhook would and reads every event with the official JavaScript SDK's HTTP receiver: `node webhook.cjs`.
//
// Prints "listening PORT", then a line of JSON for each event: how it came, its attributes and its data, as the SDK has them.
const { createServer } = require("node:http");
const { gunzipSync } = require("node:zlib");
const { CloudEvent, HTTP } = require("cloudevents");

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const { "content-encoding": encoding, ...headers } = request.headers;
    const bytes = Buffer.concat(chunks);
    const body = (encoding === "gzip" ? gunzipSync(bytes) : bytes).toString("utf8");
    const read = HTTP.toEvent({ headers, body });
    for (const event of Array.isArray(read) ? read : [read]) {
      // The SDK's own schema, which is CloudEvents' official one.
      if (!(event instanceof CloudEvent) || !event.validate()) throw new Error("no CloudEvent");
      const { data, data_base64, ...attributes } = { ...event };
      console.log(JSON.stringify({ form: headers["content-type"], attributes, data }));
    }
    response.writeHead(204).end();
  });
});
server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
