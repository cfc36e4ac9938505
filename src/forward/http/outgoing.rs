//! Events as the CloudEvents HTTP binding (1.0.2) sends them: one request's headers and body. Pure.

use std::{fmt::Write, io};

use bytes::Bytes;
use flate2::{GzBuilder, write::GzEncoder};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::{Compression, Mode};
use crate::event::{
    Entry, Position, Sequence,
    cloudevents::{self, Encoding, Form, Message},
};

/// What the binding has encoded in a header's value: all but U+0021 to U+007E, and the quote and the percent sign.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// An event on its way, already rendered.
#[derive(Debug)]
pub(super) struct Item {
    pub position: Position,
    id: String,
    message: Message,
}

impl Item {
    pub fn of(entry: &Entry, previous: Sequence, mode: Mode) -> Self {
        let form = Form {
            encoding: Encoding::Json,
            mode: match mode {
                Mode::Structured | Mode::Batched => cloudevents::Mode::Structured,
                Mode::Binary => cloudevents::Mode::Binary,
            },
        };
        Self {
            position: entry.position,
            id: format!("{}-{}", entry.epoch, entry.sequence),
            message: cloudevents::message(entry, previous, form),
        }
    }

    /// Its bytes in a body.
    pub fn size(&self) -> usize {
        self.message.payload.len()
    }
}

/// One request, but for what its connection adds.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// Names what it carries, and nothing else is ever named so: the same when it is sent again.
    pub id: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body before it was packed: what is signed. The standard's own libraries take text, not gzip.
    pub plain: Bytes,
}

impl Outgoing {
    /// Of nothing: for a request that delivers nothing.
    pub fn nothing() -> Self {
        Self {
            id: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            plain: Bytes::new(),
        }
    }

    /// Of one item, or in batched mode of any number of them.
    pub fn of(items: &[Item], mode: Mode, compression: Compression) -> Self {
        let mut headers = HeaderMap::new();
        let body = match (mode, items) {
            (Mode::Batched, items) => {
                headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/cloudevents-batch+json"),
                );
                array(items)
            }
            (_, [item]) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(item.message.content_type));
                for (name, value) in &item.message.attributes {
                    let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes())
                        .expect("attributes have names of letters and digits");
                    headers.insert(name, encoded(value));
                }
                item.message.payload.clone()
            }
            _ => unreachable!("only a batch has another number of events than one"),
        };
        let plain = Bytes::from(body);
        let body = match compression {
            Compression::None => plain.clone(),
            Compression::Gzip => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                gzip(&plain).expect("memory takes all that is written").into()
            }
        };
        Self {
            id: id(items),
            headers,
            body,
            plain,
        }
    }
}

fn array(items: &[Item]) -> Vec<u8> {
    let size: usize = items.iter().map(|item| item.size() + 1).sum();
    let mut body = Vec::with_capacity(size + 1);
    body.push(b'[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&item.message.payload);
    }
    body.push(b']');
    body
}

fn encoded(value: &str) -> HeaderValue {
    let text = utf8_percent_encode(value, ENCODED).to_string();
    HeaderValue::from_str(&text).expect("what is left is visible ASCII")
}

/// The event's id. Of several a digest of their ids: the first one's alone would name other batches too, and a
/// receiver that dedupes by it would lose what only the second one had.
fn id(items: &[Item]) -> String {
    if let [item] = items {
        return item.id.clone();
    }
    let mut digest = Sha256::new();
    for item in items {
        digest.update(&item.id);
        digest.update(b"\n");
    }
    let mut id = "batch-".to_owned();
    for byte in digest.finalize().iter().take(16) {
        write!(id, "{byte:02x}").expect("a String takes all that is written");
    }
    id
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    // No time and no name in it: sent again, it is the same.
    let builder = GzBuilder::new().mtime(0);
    let mut encoder: GzEncoder<Vec<u8>> = builder.write(Vec::new(), flate2::Compression::default());
    io::Write::write_all(&mut encoder, body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_headers_value_is_encoded_as_the_binding_says() {
        // The binding's own example, and its edges.
        assert_eq!(encoded("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encoded("a\"b%c!~"), "a%22b%25c!~");
        assert_eq!(encoded("\n\u{7f}é"), "%0A%7F%C3%A9");
        assert_eq!(encoded("urn:x/y?z=1&q='{}'"), "urn:x/y?z=1&q='{}'");
    }
}
