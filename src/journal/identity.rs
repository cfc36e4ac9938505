//! Whose journal it is: written once, before anything else.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Epoch, Position},
    time::Timestamp,
};

use super::{Owner, frame, storage::Storage};

/// Its file's name.
pub(super) const NAME: &str = "identity";
const MAGIC: &[u8; 8] = b"TGIDENT\x01";
/// Far more than an identity needs.
const MAX: usize = 4096;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub version: u32,
    pub epoch: Epoch,
    pub machine_id: String,
    pub board_serial: String,
    pub gateway: String,
    pub created: Timestamp,
    /// Positions go on above this: the last one of the epoch before.
    pub after: Position,
}

impl Identity {
    /// Whether it is the same gateway on the same board.
    pub fn is_of(&self, owner: &Owner) -> bool {
        self.machine_id == owner.machine_id
            && self.board_serial == owner.board_serial
            && *self.gateway == *owner.origin.gateway
    }

    /// Writes it, durably but for its name.
    pub fn write(&self, storage: &dyn Storage, dir: &Path) -> io::Result<()> {
        let payload = frame::encode(self);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        let file = storage.open(&dir.join(NAME))?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()
    }

    /// Reads it; none if it cannot be believed.
    pub fn read(storage: &dyn Storage, dir: &Path) -> io::Result<Option<Self>> {
        if !storage.list(dir)?.iter().any(|name| name == NAME) {
            return Ok(None);
        }
        let mut bytes = vec![0; MAX];
        let count = storage.open(&dir.join(NAME))?.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        Ok(Self::decode(&bytes))
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let length = usize::try_from(u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?)).ok()?;
        let payload = bytes.get(20..)?.get(..length)?;
        if bytes.get(16..20)? != crc32c::crc32c(payload).to_le_bytes() {
            return None;
        }
        frame::decode(payload)
    }
}
