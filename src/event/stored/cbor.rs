//! CBOR read where it lies: no copy, no allocation, and the bytes of any item can be had. Only what ciborium writes of
//! events (RFC 8949 with lengths that are said beforehand); `None` is anything else. No bytes make it panic, recurse or run on.

/// Items that are still to be read.
#[derive(Debug)]
pub(super) struct Cbor<'b>(&'b [u8]);

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// First bytes.
const FALSE: u8 = 0xF4;
const TRUE: u8 = 0xF5;
const NULL: u8 = 0xF6;
const HALF: u8 = 0xF9;
const SINGLE: u8 = 0xFA;
const DOUBLE: u8 = 0xFB;

/// The tag of a number of more than 64 bits.
const BIG: u64 = 2;

impl<'b> Cbor<'b> {
    /// What `read` makes of `bytes`, if it leaves none of them.
    pub fn all<T>(bytes: &'b [u8], read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let mut cbor = Self(bytes);
        let read = read(&mut cbor);
        read.filter(|_| cbor.0.is_empty())
    }

    /// Whether an array begins there.
    pub fn is_array(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| first >> 5 == ARRAY)
    }

    /// An item's kind and its argument; what belongs to it comes behind.
    fn head(&mut self) -> Option<(u8, u64)> {
        let (first, rest) = self.0.split_first()?;
        let (kind, short) = (first >> 5, first & 31);
        let length = match short {
            0..24 => {
                self.0 = rest;
                return Some((kind, short.into()));
            }
            24..28 => 1 << (short - 24),
            _ => return None,
        };
        let (argument, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((kind, big_endian(argument)))
    }

    /// The argument of an item of this kind; of another one nothing is read.
    fn of(&mut self, kind: u8) -> Option<u64> {
        let is = self.0.first().is_some_and(|first| first >> 5 == kind);
        if is {
            self.head().map(|(_, argument)| argument)
        } else {
            None
        }
    }

    fn take(&mut self, length: u64) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes this first byte, if it stands there.
    fn is(&mut self, first: u8) -> bool {
        let rest = self.0.strip_prefix(&[first]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// The bytes of the next item, whatever it is.
    pub fn item(&mut self) -> Option<&'b [u8]> {
        self.items(1)
    }

    /// The bytes of so many.
    pub fn items(&mut self, mut count: u64) -> Option<&'b [u8]> {
        let whole = self.0;
        while count > 0 {
            count -= 1;
            match self.head()? {
                (BYTES | TEXT, length) => _ = self.take(length)?,
                (ARRAY, items) => count = count.checked_add(items)?,
                (MAP, pairs) => count = count.checked_add(pairs.checked_mul(2)?)?,
                (TAG, _) => count += 1,
                _ => {}
            }
        }
        whole.get(..whole.len() - self.0.len())
    }

    /// An array of exactly so many items begins.
    pub fn array(&mut self, items: u64) -> Option<()> {
        self.of(ARRAY).filter(|found| *found == items).map(drop)
    }

    /// A map begins: of how many pairs.
    pub fn map(&mut self) -> Option<u64> {
        self.of(MAP)
    }

    /// An array of any length, of what `read` reads.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let items = self.of(ARRAY)?;
        let mut list = Vec::new();
        for _ in 0..items {
            list.push(read(self)?);
        }
        Some(list)
    }

    /// Null, or what `read` reads.
    #[expect(clippy::option_option, reason = "nothing that is known, and null, which is")]
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.is(NULL) {
            return Some(None);
        }
        read(self).map(Some)
    }

    pub fn text(&mut self) -> Option<&'b str> {
        let length = self.of(TEXT)?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.of(UNSIGNED)
    }

    pub fn i64(&mut self) -> Option<i64> {
        if let Some(number) = self.of(UNSIGNED) {
            return number.try_into().ok();
        }
        // -1 - n
        self.of(NEGATIVE)?.try_into().ok().map(|number: i64| !number)
    }

    pub fn u128(&mut self) -> Option<u128> {
        if let Some(number) = self.of(UNSIGNED) {
            return Some(number.into());
        }
        self.of(TAG).filter(|tag| *tag == BIG)?;
        let length = self.of(BYTES).filter(|length| *length <= 16)?;
        let bytes = self.take(length)?.iter();
        Some(bytes.fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }

    pub fn bool(&mut self) -> Option<bool> {
        if self.is(TRUE) {
            return Some(true);
        }
        self.is(FALSE).then_some(false)
    }

    pub fn f64(&mut self) -> Option<f64> {
        let first = *self.0.first()?;
        if !matches!(first, HALF | SINGLE | DOUBLE) {
            return None;
        }
        let (_, bits) = self.head()?;
        Some(match first {
            HALF => half(bits.try_into().ok()?),
            SINGLE => f32::from_bits(bits.try_into().ok()?).into(),
            _ => f64::from_bits(bits),
        })
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A float of 16 bits (RFC 8949, appendix D).
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3FF));
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use ciborium::Value;
    use proptest::prelude::*;

    use super::*;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_short_float_is_what_ciborium_takes_it_for() {
        for bits in 0..=u16::MAX {
            let [high, low] = bits.to_be_bytes();
            let bytes = [HALF, high, low];
            let theirs: f64 = ciborium::from_reader(&bytes[..]).unwrap();
            let ours = Cbor::all(&bytes, Cbor::f64).unwrap();
            assert!(
                ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()),
                "{bits:04x}: {ours} {theirs}"
            );
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_nothing() {
        for bytes in [
            &[0x7B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF][..],
            &[0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xBB, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x82, 0x01],
            &[0x9F, 0xFF],
            &[0x19, 0x01],
            &[],
        ] {
            assert_eq!(Cbor(bytes).item(), None, "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_and_texts_are_read_as_they_were_written(
            whole: i64, big: u128, float: f64, text: String, short in -300..300_i16,
        ) {
            let number = encoded(&whole.into());
            prop_assert_eq!(Cbor::all(&number, Cbor::i64), Some(whole));
            prop_assert_eq!(Cbor::all(&number, Cbor::u64), u64::try_from(whole).ok());
            let mut bytes = Vec::new();
            ciborium::into_writer(&big, &mut bytes).unwrap();
            prop_assert_eq!(Cbor::all(&bytes, Cbor::u128), Some(big));
            for float in [float, short.into(), f64::from(short) / 3.0] {
                prop_assert_eq!(Cbor::all(&encoded(&float.into()), Cbor::f64), Some(float));
            }
            let bytes = encoded(&text.clone().into());
            prop_assert_eq!(Cbor::all(&bytes, Cbor::text), Some(&*text));
        }

        #[test]
        fn an_items_bytes_are_all_of_it_and_no_more(texts: Vec<String>, number: u128, behind: Vec<u8>) {
            let texts = texts.into_iter().map(Value::from);
            let pairs = texts.clone().map(|text| (text, Value::Null)).collect();
            let mut bytes = Vec::new();
            ciborium::into_writer(&(Value::Array(texts.collect()), number, Value::Map(pairs)), &mut bytes).unwrap();
            let whole = bytes.len();
            bytes.extend(behind);
            prop_assert_eq!(Cbor(&bytes).item(), bytes.get(..whole));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let read = Cbor(&bytes).item();
            prop_assert!(read.is_none_or(|read| bytes.starts_with(read)));
        }
    }
}
