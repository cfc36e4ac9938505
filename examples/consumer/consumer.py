#!/usr/bin/env python3
"""A complete receiver of Tidegate's events: copy it and put your own work into `handle`.

    consumer.py run DIRECTORY HOST PORT [SINK]    receive, for ever
    consumer.py report DIRECTORY                  what is missing, and which alarms are open; exit code 1 if any is missing

SINK is the name of the `[[sink.mqtt]]` that fills this broker; "cloud" if not given. What it promises: each event is in
DIRECTORY/handled.jsonl exactly once, whatever is killed and whenever; what is not there is named by `report` until it
comes, or until the gateway says that it will not. docs/subscribing.md says why each step is as it is.
Needs paho-mqtt 2. The same in Rust is in main.rs beside this file; both keep the same files.
"""

import json
import os
import pathlib
import sys
from datetime import datetime, timezone

TOPIC = "tidegate/+/events/#"
SESSION_SECONDS = 7 * 24 * 3600  # so long the broker keeps what comes while we are away; what it drops is seen as a gap
GATEWAY_EVENT = "io.tidegate.gateway."


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Completeness: one epoch of one source. `epoch` is a part of the state: {"highest": 120, "gaps": [[42, 45, since]], ...}.
# The mark (all up to here is handled or explained) stands right before the first gap; without gaps it is `highest`.


def expect(epoch, number):
    """All numbers up to this one exist: those that we have not heard of are a gap."""
    if number > epoch["highest"]:
        epoch["gaps"].append([epoch["highest"] + 1, number, now()])
        epoch["highest"] = number


def close(epoch, first, last):
    """Takes first..last out of the gaps; returns the highest number that was in one, 0 if none was."""
    kept, highest = [], 0
    for start, end, since in epoch["gaps"]:
        if end < first or last < start:
            kept.append([start, end, since])
            continue
        highest = max(highest, min(end, last))
        if start < first:
            kept.append([start, first - 1, since])
        if last < end:
            kept.append([last + 1, end, since])
    epoch["gaps"] = kept
    return highest


def arrived(source, event):
    """Notes that an event is here; returns whether it is new. All else is a duplicate."""
    number, previous = int(event["sequence"]), int(event.get("previoussequence", 0))
    if number < 1 or previous >= number:
        raise ValueError("sequences begin at 1, and grow")
    if event["epoch"] not in source["epochs"]:
        # We begin with the first event of a source that we hear, but know a later epoch of it from its number 1 on:
        # unless nothing of it was for us until now (previous is 0).
        begin = number - 1 if not source["epochs"] or previous == 0 else 0
        source["epochs"][event["epoch"]] = {
            "highest": begin, "gaps": [], "lost": 0, "alarms_as_of": 0, "listing": None, "episodes": {},
        }
        source["current"] = source["current"] or event["epoch"]
    epoch = source["epochs"][event["epoch"]]
    expect(epoch, number)
    new = close(epoch, number, number) > 0
    # What lies between did not pass our sink's filter. All zeros says nothing: a chain begins there.
    if previous > 0:
        close(epoch, previous + 1, number - 1)
    return new


def discarded(source, data, sink):
    """`EventsDiscarded`: these will not come to the sinks it names. Its epoch may be an older one."""
    epoch = source["epochs"].get(data["epoch"])
    if epoch is None or sink not in data["sinks"]:
        return
    for first, last in data["ranges"]:
        expect(epoch, last)
        epoch["lost"] = max(epoch["lost"], close(epoch, first, last))


# Alarms: epoch["episodes"] holds those that are open, by correlationid, and for as long as something before it is
# missing also what was cleared: so that a raise which comes late does not open it again. Those of the current epoch
# count; the others' are kept, for their card may be put back.


def follow(source, event):
    epoch, number = source["epochs"][event["epoch"]], int(event["sequence"])
    if event["type"] in (GATEWAY_EVENT + "GatewayStarted", GATEWAY_EVENT + "ActiveAlarms"):
        # The gateway runs in this epoch, unless it says so of a time that is over: then we know of later ones.
        if number == epoch["highest"]:
            source["current"] = event["epoch"]
    if event["type"] == GATEWAY_EVENT + "ActiveAlarms":
        all_active(epoch, number, event["data"])
    elif event.get("transition") in ("raised", "reminded", "changed", "cleared"):
        told = epoch["episodes"].get(event["correlationid"])
        # Else it is out of date: a later event of this episode was here, or a later list that did not have it.
        if number > (told["sequence"] if told else epoch["alarms_as_of"]):
            epoch["episodes"][event["correlationid"]] = {
                "sequence": number,
                "open": event["transition"] != "cleared",
                "severity": event["severitytext"],
                "since": event["data"]["episode"]["since"],
                "summary": event["data"]["summary"],
            }
    mark = epoch["gaps"][0][0] - 1 if epoch["gaps"] else epoch["highest"]
    epoch["episodes"] = {i: e for i, e in epoch["episodes"].items() if e["open"] or e["sequence"] > mark}


def all_active(epoch, number, data):
    """`ActiveAlarms`: exactly these were open then. It mends what a lost raise or a lost clear has left wrong."""
    if data["part"] == 1:
        epoch["listing"] = {"first": number, "parts": 0, "ids": []}
    listing = epoch["listing"]
    if not listing or listing["parts"] + 1 != data["part"] or number < epoch["alarms_as_of"]:
        epoch["listing"] = None  # a part is missing, or a later list was here: this one says nothing
        return
    listing["parts"] += 1
    for alarm in data["alarms"]:
        listing["ids"].append(alarm["id"])
        epoch["episodes"].setdefault(alarm["id"], {
            "sequence": listing["first"],
            "open": True,
            "severity": alarm["severity"],
            "since": alarm["since"],
            "summary": f"{alarm['device']}: {alarm['event']}",
        })
    if listing["parts"] == data["parts"]:
        ids, first = set(listing["ids"]), listing["first"]
        epoch["episodes"] = {i: e for i, e in epoch["episodes"].items() if i in ids or e["sequence"] > first}
        epoch["alarms_as_of"], epoch["listing"] = first, None


class Consumer:
    def __init__(self, directory, sink):
        self.directory, self.sink = pathlib.Path(directory), sink
        self.directory.mkdir(parents=True, exist_ok=True)
        self.state = load(self.directory)
        # What was handled after the state was last stored was not acknowledged either: it comes again. Taking it back
        # makes handling and mark one step. With a database: one transaction for both, and no such line.
        self.handled = open(self.directory / "handled.jsonl", "ab")
        self.handled.truncate(self.state["handled_bytes"])
        self.handled.seek(0, os.SEEK_END)

    def receive(self, payload):
        """Returns only when the event is handled and the mark is on the disk: then it may be acknowledged."""
        try:
            event = json.loads(payload)
            # Before anything is noted: what JSON or UTF-8 cannot hold, or what is nested too deeply, fails here.
            line = json.dumps(event, ensure_ascii=False, allow_nan=False).encode()
            identity, name = event["id"], event["source"]
            what = event.get("transition") or event["type"].rpartition(".")[2]
            known = self.state["sources"].get(name, {"current": "", "epochs": {}})
            new = arrived(known, event)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            # Never let what nobody can read hold up what comes behind it: say so, and let it pass.
            print(f"not an event: {error!r} in {payload[:200]!r}", flush=True)
            return
        known["heard"] = now()
        self.state["sources"][name] = known
        if new:
            try:
                if event["type"] == GATEWAY_EVENT + "EventsDiscarded":
                    discarded(known, event["data"], self.sink)
                follow(known, event)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                print(f"{identity}: handled, but not understood: {error!r}", flush=True)
            self.handle(line)
        store(self.directory, self.state)
        print(f"{identity} {what}: {'handled' if new else 'duplicate'}", flush=True)

    def handle(self, line):
        """Your work. It must be done, or be certain to be done, when this returns."""
        self.handled.write(line + b"\n")
        self.handled.flush()
        os.fsync(self.handled.fileno())
        self.state["handled_bytes"] = self.handled.tell()


def load(directory):
    try:
        return json.loads((directory / "state.json").read_text())
    except FileNotFoundError:
        return {"handled_bytes": 0, "sources": {}}


def store(directory, state):
    """The old state or the new one, never a half: also after a power cut."""
    with open(directory / "state.new", "w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(directory / "state.new", directory / "state.json")
    folder = os.open(directory, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def report(directory):
    missing = 0
    for name, source in load(directory)["sources"].items():
        print(f"{name}: last heard {source['heard']}")
        for identity, epoch in source["epochs"].items():
            over = "" if identity == source["current"] else " (over)"
            print(f"  epoch {identity}{over}: up to {epoch['highest']}")
            for first, last, since in epoch["gaps"]:
                missing += last - first + 1
                print(f"    missing {first} to {last} since {since}")
        epoch = source["epochs"][source["current"]]
        if epoch["gaps"] or epoch["lost"] > epoch["alarms_as_of"]:
            print("  a raise or a clear may be among what is missing or lost: certain with the next ActiveAlarms")
        for identity, episode in epoch["episodes"].items():
            if episode["open"]:
                print(f"  open {identity} {episode['severity']} since {episode['since']}: {episode['summary']}")
    return 1 if missing else 0


def run(directory, host, port, sink="cloud"):
    import paho.mqtt.client as mqtt

    consumer = Consumer(directory, sink)
    # The broker keeps the session under this name: one for each directory, for they belong together.
    name = f"consumer-{consumer.directory.name}"
    # manual_ack: paho must not acknowledge before we are done.
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5, manual_ack=True)

    def connected(client, _, flags, reason, __):
        print(f"connected: {reason}, {'the' if flags.session_present else 'a new'} session", flush=True)
        client.subscribe(TOPIC, qos=1)

    def subscribed(_, __, ___, reasons, ____):
        print(f"subscribed: {reasons[0]}", flush=True)
        if reasons[0].is_failure:  # connected and without the right to read: that would be silence for ever
            raise PermissionError(f"the broker refuses {TOPIC}: {reasons[0]}")

    def message(client, _, message):
        consumer.receive(message.payload)
        client.ack(message.mid, message.qos)

    client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, message
    properties = mqtt.Properties(mqtt.PacketTypes.CONNECT)
    properties.SessionExpiryInterval = SESSION_SECONDS
    # Not a clean start: what came while we were away is sent now.
    client.connect_async(host, int(port), clean_start=False, properties=properties)
    client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # no text of an event may end us
    match sys.argv[1:]:
        case ["run", directory, host, port, *sink] if len(sink) <= 1:
            run(directory, host, port, *sink)
        case ["report", directory]:
            sys.exit(report(pathlib.Path(directory)))
        case _:
            sys.exit(__doc__)
