//! The ids of the messages that somebody may want to be woken by: `MESSAGE_ID` in systemd's journal.
//!
//! A message carries its name (`warn!(name: "UplinkLost", ...)`), which is the event's where there is one; `tests/tidy/log.rs`
//! holds names, ids and `packaging/tidegate.catalog` together. An id is given once (`systemd-id128 new`) and never to
//! anything else.

/// Name and id.
pub const IDS: &[(&str, &str)] = &[
    ("GatewayStarted", "28e58d7c0a7742e2adf836754b1985d5"),
    ("GatewayStopped", "9285accf5702445bae9928120952e732"),
    ("GatewayFailed", "045e8af790b44264a0c8e3dde9da29e9"),
    ("ConfigurationRejected", "927b92be1ce143768ab14b93a3d0a23f"),
    ("ConfigurationChanged", "0ed2db9476d842d781f929c551e142ca"),
    ("JournalRecovered", "0eedd3c618db4ae68b25040738cd1d46"),
    ("StorageDamaged", "d6df1dc135464b5abd342c30945ef6d3"),
    ("EventsDiscarded", "dc814748453246bf8db93a9402db01b0"),
    ("JournalFilling", "d8d3a3d63bb74ff5b84b6ab9161af113"),
    ("JournalDrained", "1758a31483014cc381093afddad064a6"),
    ("JournalFull", "2d5958bd976a403ea5a6c2c55cdb0616"),
    ("JournalHasRoom", "475a127692614572975adf08901cae0f"),
    ("CommitRefused", "1874761f241741d4957375db14ea0a53"),
    ("StateFull", "02bb18e770d741908f86d11a976c64ac"),
    ("UplinkLost", "e058772891a144c0bafde46a465c03ee"),
    ("UplinkRestored", "a4dcd0158e90431189a31a8148215cb4"),
    ("EventRefused", "b776eead3805420c8495a9df5950dc79"),
    ("SinkStopped", "d27bbccb823e4e75b4eba2472eee5a6e"),
    ("EventSetAside", "fc8138dfd86447cb959da38f62705a58"),
    ("SourceFailed", "ba964c2a0e6d45dd8d0900689b723bf3"),
    ("SourceRecovered", "25906a7e37be4154916ef3860f4ca869"),
    ("ReadingsRefused", "930089b36e6d4d798d1302d35ef84ee9"),
    ("ConnectionPanicked", "4b480b0e9b924ec4bb21c7fc1925a05b"),
    ("StageStuck", "8aa37ea16c8543e89e8b5d0e0e3c554e"),
    ("StageMoves", "df1f1f1352b5488c99f0fd9d227215f1"),
    ("ClockUnknown", "435abc65e0004b599b8378f00378fed6"),
    ("ClockSynchronised", "12bd4c1108ec4e58ba6e6ff70680470d"),
    ("ClockLost", "9096c30a5a504b858774a9dfa6e570b5"),
    ("RecorderPaused", "5346b4e8629a4b198d5912de2221f2cb"),
    ("RecorderResumed", "f6bad77defee461685ef6f8a57b153c6"),
];

/// The id of the message of this name.
pub(super) fn id(name: &str) -> Option<&'static str> {
    IDS.iter().find(|(known, _)| *known == name).map(|(_, id)| *id)
}
