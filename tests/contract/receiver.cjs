// Subscribes as a cloud would and reads every event with the official JavaScript SDK: `node receiver.cjs PORT`.
//
// Prints "subscribed", then a line of JSON for each event: how it came, its attributes and its data, as the SDK has them.
// The SDK knows no CBOR: there it is told so, and only the attributes of binary mode are read.
const { connect } = require("mqtt");
const { CloudEvent, MQTT } = require("cloudevents");

const client = connect({ host: "127.0.0.1", port: Number(process.argv[2]), protocolVersion: 5 });

client.on("connect", () => client.subscribe("tidegate/+/events/#", { qos: 1 }, () => console.log("subscribed")));

client.on("message", (_topic, payload, { properties }) => {
  const form = properties.contentType;
  if (form === "application/cloudevents+cbor") return console.log(JSON.stringify({ form }));
  const message = {
    PUBLISH: { "Content Type": form },
    headers: { ...properties.userProperties },
    body: form.endsWith("json") ? JSON.parse(payload.toString("utf8")) : payload,
  };
  if (!form.startsWith("application/cloudevents")) message.headers.datacontenttype = form;
  // Strict: no event is an error; and the SDK's own schema, which is CloudEvents' official one.
  const event = MQTT.toEvent(message, true);
  event.validate();
  if (!(event instanceof CloudEvent)) throw new Error("no CloudEvent");
  const { data, data_base64, ...attributes } = { ...event };
  console.log(JSON.stringify({ form, attributes, data: form.endsWith("cbor") ? undefined : data }));
});
