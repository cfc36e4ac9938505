//! Bytes of a client to packets: no panic, no hang, and what is taken from the front is gone from it.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tidegate::source::mqtt::wire::{self, Version};

const MAX_PACKET: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let [choice, rest @ ..] = input else { return };
    let version = match choice % 3 {
        0 => None,
        1 => Some(Version::V311),
        _ => Some(Version::V5),
    };
    // In two pieces, as a socket may hand them over.
    let cut = rest.len() * usize::from(choice / 3) / 86;
    let (first, second) = rest.split_at(cut.min(rest.len()));
    let mut buffer = BytesMut::from(first);
    if drained(&mut buffer, version) {
        buffer.extend_from_slice(second);
        drained(&mut buffer, version);
    }
});

/// Whether the connection would go on.
fn drained(buffer: &mut BytesMut, version: Option<Version>) -> bool {
    let _ = wire::announced_version(buffer);
    loop {
        let before = buffer.len();
        match wire::decode(buffer, version, MAX_PACKET) {
            Ok(Some(_)) => assert!(buffer.len() < before, "a packet of no bytes"),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}
