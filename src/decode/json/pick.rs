//! What stands at some JSON Pointers of a payload. It is parsed once and as strictly as into a tree (UTF-8,
//! numbers, depth), but nothing is built of what nobody asked for: that is most of what a device sends.

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value as Json};

/// What stands somewhere.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    /// An object or an array: no single value.
    Several,
}

impl Found {
    /// What a tree's node is.
    pub fn of(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(on) => Self::Bool(*on),
            Json::Number(number) => Self::Number(number.clone()),
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(_) | Json::Object(_) => Self::Several,
        }
    }
}

/// A place that is looked for.
#[derive(Debug)]
pub(super) struct Pick<'a> {
    /// Of the pointer, what is below the node that is being read.
    rest: &'a str,
    /// The whole pointer.
    at: &'a str,
    /// Whether a name in it is written otherwise: `~` as `~0`, `/` as `~1`.
    is_escaped: bool,
    /// How deep it has been followed. It leads through the node that is being read only if that is as deep.
    depth: usize,
    /// What stood there; of equal keys the last counts.
    pub found: Option<Found>,
}

impl<'a> Pick<'a> {
    /// Looks for what stands at a JSON Pointer; at `""`, the payload.
    pub fn new(at: &'a str) -> Self {
        Self {
            rest: at,
            at,
            is_escaped: at.contains('~'),
            depth: 0,
            found: None,
        }
    }

    /// What is below the next level, if that is the member of this name.
    fn below(&self, name: &str) -> Option<&'a str> {
        let levels = self.rest.strip_prefix('/')?;
        if !self.is_escaped {
            let below = levels.strip_prefix(name)?;
            let is_level = below.is_empty() || below.starts_with('/');
            // What has a slash in its name is no two levels.
            return (is_level && !name.contains('/')).then_some(below);
        }
        let (level, below) = levels.split_at(levels.find('/').unwrap_or(levels.len()));
        (level.replace("~1", "/").replace("~0", "~") == name).then_some(below)
    }

    /// What is below the next level, if that is the element of this place.
    fn below_index(&self, index: usize) -> Option<&'a str> {
        let levels = self.rest.strip_prefix('/')?;
        let (level, below) = levels.split_at(levels.find('/').unwrap_or(levels.len()));
        is_index(level, index).then_some(below)
    }

    fn enter(&mut self, rest: &'a str) {
        self.rest = rest;
        self.depth += 1;
        // An earlier member of the same name, and all below it, is forgotten.
        self.found = None;
    }

    fn leave(&mut self) {
        self.depth -= 1;
        let passed = self.at.len() - self.rest.len();
        let slash = match self.depth {
            0 => Some(0),
            _ => self.at.get(..passed).and_then(|passed| passed.rfind('/')),
        };
        self.rest = slash.and_then(|slash| self.at.get(slash..)).unwrap_or(self.at);
    }
}

/// Fills `picks` from one JSON text.
pub(super) fn pick(payload: &[u8], picks: &mut [Pick<'_>]) -> Result<(), serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(payload);
    Node { picks, depth: 0 }.deserialize(&mut parser)?;
    parser.end()
}

/// A node that is being read.
struct Node<'p, 'a> {
    picks: &'p mut [Pick<'a>],
    depth: usize,
}

impl<'a> Node<'_, 'a> {
    fn through(&mut self) -> impl Iterator<Item = &mut Pick<'a>> {
        let depth = self.depth;
        self.picks.iter_mut().filter(move |pick| pick.depth == depth)
    }

    fn tell(&mut self, found: impl Fn() -> Found) {
        for pick in self.through().filter(|pick| pick.rest.is_empty()) {
            pick.found = Some(found());
        }
    }

    /// Follows the picks that lead to a member.
    fn enter(&mut self, below: impl Fn(&Pick<'a>) -> Option<&'a str>) {
        for pick in self.through() {
            if let Some(rest) = below(pick) {
                pick.enter(rest);
            }
        }
    }

    fn leave(&mut self) {
        let below = self.depth + 1;
        for pick in self.picks.iter_mut().filter(|pick| pick.depth == below) {
            pick.leave();
        }
    }

    fn below(&mut self) -> Node<'_, 'a> {
        Node {
            picks: self.picks,
            depth: self.depth + 1,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.tell(|| Found::Null);
        Ok(())
    }

    fn visit_bool<E>(mut self, on: bool) -> Result<(), E> {
        self.tell(|| Found::Bool(on));
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.tell(|| Found::Number(number.into()));
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.tell(|| Found::Number(number.into()));
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.tell(|| Number::from_f64(number).map_or(Found::Null, Found::Number));
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.tell(|| Found::Text(text.to_owned()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.tell(|| Found::Several);
        for index in 0_usize.. {
            self.enter(|pick| pick.below_index(index));
            let more = members.next_element_seed(self.below())?;
            self.leave();
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.tell(|| Found::Several);
        while members.next_key_seed(Name(&mut self))?.is_some() {
            members.next_value_seed(self.below())?;
            self.leave();
        }
        Ok(())
    }
}

/// A member's name: the picks that lead there follow it.
struct Name<'n, 'p, 'a>(&'n mut Node<'p, 'a>);

impl<'de> DeserializeSeed<'de> for Name<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<(), E> {
        self.0.enter(|pick| pick.below(name));
        Ok(())
    }
}

fn is_index(level: &str, index: usize) -> bool {
    let plain = level == "0" || !level.starts_with(['0', '+']);
    plain && level.parse() == Ok(index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("\"\\u00e9 x\"".to_owned()),
            any::<u64>().prop_map(|number| number.to_string()),
            any::<i32>().prop_map(|number| number.to_string()),
            (-1e9..1e9).prop_map(|number: f64| number.to_string()),
        ];
        // Few names, so that some come twice in one object.
        let name = prop_oneof![Just("a"), Just("b"), Just("0"), Just("a/b"), Just("~"), Just("")];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|members| format!("[{}]", members.join(" , "))),
                proptest::collection::vec((name.clone(), inner), 0..5).prop_map(|members| {
                    let members = members.iter().map(|(name, value)| format!("\"{name}\":{value}"));
                    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_pick_finds_what_the_tree_has_there(
            text in json(),
            cut in 0_usize..200,
            at in proptest::collection::vec("(/(a|b|0|1|00|\\+1|a~1b|~0|)){0,4}", 1..4),
        ) {
            for text in [text.as_str(), text.get(..cut).unwrap_or(&text)] {
                let mut picks: Vec<Pick<'_>> = at.iter().map(|at| Pick::new(at)).collect();
                let tree = serde_json::from_str::<Json>(text);
                let picked = pick(text.as_bytes(), &mut picks);
                prop_assert_eq!(tree.is_ok(), picked.is_ok(), "{}", text);
                let Ok(tree) = tree else { continue };
                for (pick, at) in picks.into_iter().zip(&at) {
                    prop_assert_eq!(pick.found, tree.pointer(at).map(Found::of), "{} in {}", at, text);
                }
            }
        }
    }

    #[test]
    fn of_equal_names_the_last_counts_with_all_below_it() {
        for (text, found) in [
            (r#"{"a":{"b":1},"a":{"b":2}}"#, Some(Found::Number(2.into()))),
            (r#"{"a":{"b":1},"a":{"c":2}}"#, None),
            (r#"{"a":{"b":1},"a":[]}"#, None),
            (
                r#"{"a":[],"a":{"c":[{}],"b":1,"d":{"b":2}}}"#,
                Some(Found::Number(1.into())),
            ),
        ] {
            let mut picks = [Pick::new("/a/b")];
            pick(text.as_bytes(), &mut picks).unwrap();
            assert_eq!(picks[0].found, found, "{text}");
        }
    }

    #[test]
    fn what_nobody_asks_for_must_be_right_too() {
        for wrong in [
            "{\"x\":1e999}",
            "{\"x\":01}",
            "{\"x\":nul}",
            "{} {}",
            "{\"x\":\"\\ud800\"}",
        ] {
            assert!(pick(wrong.as_bytes(), &mut [Pick::new("/a")]).is_err(), "{wrong}");
        }
        assert!(pick(b"{\"x\":\"\xff\"}", &mut [Pick::new("/a")]).is_err());
        let deep = "[".repeat(100_000);
        assert!(pick(deep.as_bytes(), &mut []).is_err());
    }
}
