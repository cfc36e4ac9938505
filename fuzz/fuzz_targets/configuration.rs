//! A configuration file: it loads, or its report renders; no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::config::{Config, Machine};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let machine = Machine {
        board_serial: "10000000abcdef01".to_owned(),
        machine_id: String::new(),
        state_directory: None,
        filesystem_bytes: |_| Some(8 << 30),
    };
    match Config::parse("gateway.toml", text, &machine) {
        Ok(config) => assert!(!config.gateway.id.is_empty()),
        Err(report) => assert!(!report.render(false).is_empty()),
    }
});
