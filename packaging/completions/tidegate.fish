# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tidegate_global_optspecs
    string join \n h/help V/version
end

function __fish_tidegate_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tidegate_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tidegate_using_subcommand
    set -l cmd (__fish_tidegate_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tidegate -n "__fish_tidegate_needs_command" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_needs_command" -s V -l version -d 'Print version'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "run" -d 'Run the gateway until SIGTERM or Ctrl-C'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "check" -d 'Say whether a configuration is right, and if not, where and what to do'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "firstboot" -d 'Install the configuration that lies on the card\'s boot partition. A service runs this before the gateway\'s'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "catalog" -d 'Describe every event that a configuration can emit: name, meaning, severity, topic, schema, an example'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "doctor" -d 'Look at everything that the gateway stands on, and say what is wrong and what to do about it'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "plan" -d 'How long the journal bridges an outage, how long it then drains, how long the card lasts; and what that assumes'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "test" -d 'Test rules: tell them stories of readings, and say where other events come than a story expects'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "readings" -d 'List or export the readings that the recorder keeps, also while the gateway runs'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "backtest" -d 'Try rules on recorded readings: what they would have said, beside what was said'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "journal" -d 'Look into the journal: of a running gateway, or of a dead one\'s card'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "reload" -d 'Have the running gateway read its configuration again'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "mute" -d 'Mute a device or a rule for a while'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "unmute" -d 'End a mute before its time'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "device" -d 'What the running gateway knows of its devices'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "status" -d 'How the running gateway stands: journal, sinks, sources, alarms, what was lost'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "events" -d 'What the running gateway has raised'
complete -c tidegate -n "__fish_tidegate_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand run" -s c -l config -d 'The configuration file' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand run" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand run" -l strict -d 'Exit with code 78 if the configuration does not load, even if an earlier one did'
complete -c tidegate -n "__fish_tidegate_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand firstboot" -l boot -d 'The boot partition [default: /boot/firmware, else /boot]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand firstboot" -s c -l config -d 'The configuration file to be; the folder\'s files go to its directory' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand firstboot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand catalog" -s c -l config -d 'The configuration file' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand catalog" -l format -d 'What to print' -r -f -a "asyncapi\t'An AsyncAPI 3.0 document in JSON, which is YAML too'
json-schema\t'A JSON Schema of an event in structured JSON mode'
markdown\t'For people'"
complete -c tidegate -n "__fish_tidegate_using_subcommand catalog" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand doctor" -s c -l config -d 'The configuration file' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand doctor" -l format -r -f -a "text\t'For people'
json\t'For scripts'"
complete -c tidegate -n "__fish_tidegate_using_subcommand doctor" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand plan" -s c -l config -d 'The configuration file. The certificates and passwords that it names need not be there' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand plan" -l events-per-day -d 'Events in a day, without heartbeats [default: as many as the journal has seen; 1000, if it has seen none]' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand plan" -l uplink-kbit -d 'What the uplink carries, in kbit/s' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand plan" -l round-trip -d 'How long an answer of the uplink takes: 100ms' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand plan" -l card -d 'The card, if it is not the one that the journal is on here: 32GiB' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand plan" -l format -r -f -a "text\t'For people'
json\t'For scripts'"
complete -c tidegate -n "__fish_tidegate_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand test" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand readings" -s c -l config -d 'The configuration whose gateway recorded them' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand readings" -l dir -d 'The directory they are in, instead of a configuration' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand readings" -l device -d 'Only of devices whose id is this; `*` stands for any characters' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand readings" -l metric -d 'Only of this metric' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand readings" -l from -d 'Only from this time on: 2026-11-21T10:00:00Z, or how long ago: 2h' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand readings" -l to -d 'Only before this time' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand readings" -l format -r -f -a "table\t'For people'
csv\t'With a header line'
jsonl\t'One JSON object a line'"
complete -c tidegate -n "__fish_tidegate_using_subcommand readings" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand backtest" -l rules -d 'The rules to try: a rule set, or a whole configuration' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand backtest" -s c -l config -d 'The configuration whose gateway recorded the readings and the events' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand backtest" -l from -d 'Only readings from this time on: 2026-11-21T10:00:00Z, or how long ago: 2h. No alarm is open then' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand backtest" -l to -d 'Only readings before this time' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand backtest" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "ls" -d 'List epochs, segments with their events and ages, and how far every sink is behind'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "show" -d 'Show one event, with its times as right as they are known by now, and which sinks have it'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "fsck" -d 'Verify every frame, and say where damage is and what it costs'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "export" -d 'Write events to the standard output as CloudEvents'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "replay" -d 'Send a sink again what is kept, from some event or time on'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "forget" -d 'Forget where a sink stood that is no longer configured'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "dead" -d 'What a sink refused for good: list it, send it again, or give it up'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "new-epoch" -d 'End the epoch, as part of putting an old image of the card back. The gateway must be stopped'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and not __fish_seen_subcommand_from ls show fsck export replay forget dead new-epoch help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from ls" -s c -l config -d 'The configuration of its gateway [default: /etc/tidegate/gateway.toml; where there is none, the journal in the state directory is meant]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from ls" -l dir -d 'The directory itself: of a card from elsewhere, say' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from ls" -l format -r -f -a "table\t'For people'
json\t'For scripts'"
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from show" -s c -l config -d 'The configuration of its gateway [default: /etc/tidegate/gateway.toml; where there is none, the journal in the state directory is meant]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from show" -l dir -d 'The directory itself: of a card from elsewhere, say' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from show" -l format -r -f -a "text\t'For people: where it stands and who has it, then the event'
json\t'All of it as one JSON object'"
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from fsck" -s c -l config -d 'The configuration of its gateway [default: /etc/tidegate/gateway.toml; where there is none, the journal in the state directory is meant]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from fsck" -l dir -d 'The directory itself: of a card from elsewhere, say' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from fsck" -l format -r -f -a "table\t'For people'
json\t'For scripts'"
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from fsck" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from export" -s c -l config -d 'The configuration of its gateway [default: /etc/tidegate/gateway.toml; where there is none, the journal in the state directory is meant]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from export" -l dir -d 'The directory itself: of a card from elsewhere, say' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from export" -l from -d 'From this event on: its number in the current epoch or its id, or what was stored since a time (2026-11-21T10:00:00Z) or for so long (2h)' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from export" -l to -d 'Up to this event, which is included, or what was stored before a time' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from export" -l format -r -f -a "jsonl\t'One event as JSON a line'
cbor\t'Events as CBOR, one behind the other (a CBOR sequence, RFC 8742)'"
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from replay" -l sink -d 'The sink, by its name in the configuration' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from replay" -l from -d 'From this event on: its number in the current epoch or its id, or the first that was stored since a time (2026-11-21T10:00:00Z) or for so long (2h). If it is no longer kept, from the next one that is' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from replay" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from forget" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from forget" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from dead" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from dead" -f -a "ls" -d 'List them: whose, which event, what the sink said. `tidegate journal show ID` shows the event'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from dead" -f -a "resend" -d 'Send them again, each under its own identity, when its sink takes something'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from dead" -f -a "drop" -d 'Give them up. `EventsDiscarded` tells the sink\'s receiver that they will not come'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from dead" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from new-epoch" -s c -l config -d 'The configuration of its gateway [default: /etc/tidegate/gateway.toml; where there is none, the journal in the state directory is meant]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from new-epoch" -l dir -d 'The directory itself: of a card from elsewhere, say' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from new-epoch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "ls" -d 'List epochs, segments with their events and ages, and how far every sink is behind'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show one event, with its times as right as they are known by now, and which sinks have it'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "fsck" -d 'Verify every frame, and say where damage is and what it costs'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "export" -d 'Write events to the standard output as CloudEvents'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "replay" -d 'Send a sink again what is kept, from some event or time on'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "forget" -d 'Forget where a sink stood that is no longer configured'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "dead" -d 'What a sink refused for good: list it, send it again, or give it up'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "new-epoch" -d 'End the epoch, as part of putting an old image of the card back. The gateway must be stopped'
complete -c tidegate -n "__fish_tidegate_using_subcommand journal; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand reload" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand mute" -l for -d 'For how long: 30m, 2h, 1d' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand mute" -l reason -d 'Why, for whoever reads the event' -r
complete -c tidegate -n "__fish_tidegate_using_subcommand mute" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand mute" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand unmute" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand unmute" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand device; and not __fish_seen_subcommand_from forget help" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand device; and not __fish_seen_subcommand_from forget help" -f -a "forget" -d 'Forget a device: its alarms are cleared (reason `device-removed`), its state and its place are free'
complete -c tidegate -n "__fish_tidegate_using_subcommand device; and not __fish_seen_subcommand_from forget help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand device; and __fish_seen_subcommand_from forget" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand device; and __fish_seen_subcommand_from forget" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand device; and __fish_seen_subcommand_from help" -f -a "forget" -d 'Forget a device: its alarms are cleared (reason `device-removed`), its state and its place are free'
complete -c tidegate -n "__fish_tidegate_using_subcommand device; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand status" -l format -r -f -a "text\t'For people'
json\t'For scripts'"
complete -c tidegate -n "__fish_tidegate_using_subcommand status" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tidegate -n "__fish_tidegate_using_subcommand events" -l socket -d 'The gateway\'s control socket [default: where the service has it]' -r -F
complete -c tidegate -n "__fish_tidegate_using_subcommand events" -l active -d 'The alarms that are open now. Records them as `ActiveAlarms`, too, for receivers that lost theirs'
complete -c tidegate -n "__fish_tidegate_using_subcommand events" -l json -d 'As JSON'
complete -c tidegate -n "__fish_tidegate_using_subcommand events" -s h -l help -d 'Print help'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "run" -d 'Run the gateway until SIGTERM or Ctrl-C'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "check" -d 'Say whether a configuration is right, and if not, where and what to do'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "firstboot" -d 'Install the configuration that lies on the card\'s boot partition. A service runs this before the gateway\'s'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "catalog" -d 'Describe every event that a configuration can emit: name, meaning, severity, topic, schema, an example'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "doctor" -d 'Look at everything that the gateway stands on, and say what is wrong and what to do about it'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "plan" -d 'How long the journal bridges an outage, how long it then drains, how long the card lasts; and what that assumes'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "test" -d 'Test rules: tell them stories of readings, and say where other events come than a story expects'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "readings" -d 'List or export the readings that the recorder keeps, also while the gateway runs'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "backtest" -d 'Try rules on recorded readings: what they would have said, beside what was said'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "journal" -d 'Look into the journal: of a running gateway, or of a dead one\'s card'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "reload" -d 'Have the running gateway read its configuration again'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "mute" -d 'Mute a device or a rule for a while'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "unmute" -d 'End a mute before its time'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "device" -d 'What the running gateway knows of its devices'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "status" -d 'How the running gateway stands: journal, sinks, sources, alarms, what was lost'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "events" -d 'What the running gateway has raised'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and not __fish_seen_subcommand_from run check firstboot catalog doctor plan test readings backtest journal reload mute unmute device status events help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from journal" -f -a "ls" -d 'List epochs, segments with their events and ages, and how far every sink is behind'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from journal" -f -a "show" -d 'Show one event, with its times as right as they are known by now, and which sinks have it'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from journal" -f -a "fsck" -d 'Verify every frame, and say where damage is and what it costs'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from journal" -f -a "export" -d 'Write events to the standard output as CloudEvents'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from journal" -f -a "replay" -d 'Send a sink again what is kept, from some event or time on'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from journal" -f -a "forget" -d 'Forget where a sink stood that is no longer configured'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from journal" -f -a "dead" -d 'What a sink refused for good: list it, send it again, or give it up'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from journal" -f -a "new-epoch" -d 'End the epoch, as part of putting an old image of the card back. The gateway must be stopped'
complete -c tidegate -n "__fish_tidegate_using_subcommand help; and __fish_seen_subcommand_from device" -f -a "forget" -d 'Forget a device: its alarms are cleared (reason `device-removed`), its state and its place are free'
