"""Subscribes as a cloud would and reads every event with the official Python SDK: `receiver.py PORT`.

Prints "subscribed", then a line of JSON for each event: how it came, its attributes and its data, as the SDK has them.
The SDK has no CBOR format and no MQTT binding: cbor2 takes CBOR apart and the user properties are the attributes; the
SDK's own type then checks them.
"""

import json
import sys

import cbor2
import paho.mqtt.client as mqtt
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from dateutil.parser import isoparse


def event_of(message):
    content_type = message.properties.ContentType
    decode = cbor2.loads if content_type.endswith("cbor") else json.loads
    if content_type == "application/cloudevents+json":
        return JSONFormat().read(CloudEvent, message.payload)
    if content_type.startswith("application/cloudevents"):
        attributes = decode(message.payload)
        data = attributes.pop("data")
    else:
        attributes = dict(message.properties.UserProperty)
        attributes["datacontenttype"] = content_type
        data = decode(message.payload)
    attributes["time"] = isoparse(attributes["time"])
    return CloudEvent(attributes, data)


def on_message(client, userdata, message):
    event = event_of(message)
    attributes = dict(event.get_attributes())
    attributes["time"] = event.get_time().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # What the SDK offers by name is what the attribute says.
    assert (event.get_id(), event.get_type()) == (attributes["id"], attributes["type"])
    assert event.get_extension("sequence") == attributes["sequence"]
    print(json.dumps({"form": message.properties.ContentType, "attributes": attributes, "data": event.get_data()}), flush=True)


def on_connect(client, userdata, flags, reason, properties):
    client.subscribe("tidegate/+/events/#", qos=1)


def on_subscribe(client, userdata, mid, reasons, properties):
    print("subscribed", flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever(retry_first_connection=False)
