"""Receives as a webhook would and reads every event with the official Python SDK: `webhook.py PORT KEY-FILE`.

Prints "listening PORT", then a line of JSON for each event: how it came, its attributes and its data, as the SDK has
them. Requests whose Standard Webhooks signature its official library does not verify are told as refused and answered
401. The SDK has no batches: each element of one is read as the structured event that it is.
"""

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

with open(sys.argv[2]) as file:
    webhook = Webhook(file.read().strip())


def events_of(headers, body):
    if headers["content-type"] != "application/cloudevents-batch+json":
        return [from_http_event(HTTPMessage(headers, body))]
    structured = {"content-type": "application/cloudevents+json"}
    return [from_http_event(HTTPMessage(structured, json.dumps(event).encode())) for event in json.loads(body)]


def line_of(form, event):
    attributes = dict(event.get_attributes())
    attributes["time"] = event.get_time().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"form": form, "attributes": attributes, "data": event.get_data()})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            webhook.verify(body, headers, json_parse=False)
        except WebhookVerificationError as why:
            print(json.dumps({"refused": str(why)}), flush=True)
            return self.answer(401, str(why).encode())
        lines = [line_of(headers["content-type"], event) for event in events_of(headers, body)]
        # Told before it is answered, as a receiver stores before it answers.
        print("\n".join(lines), flush=True)
        self.answer(204)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening {server.server_address[1]}", flush=True)
server.serve_forever()
