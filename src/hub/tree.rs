//! The tree of subscriptions: filters with `+` and `#` in, who wants a topic out. Pure.

use std::{collections::HashMap, str::Split};

use super::SubscriberId;

/// How somebody wants what matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// At most this quality of service: 0, 1 or 2.
    pub qos: u8,
    /// Not what the subscriber itself publishes.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub retain_as_published: bool,
    /// Sent along, so that the subscriber knows which of its filters matched.
    pub identifier: Option<u32>,
}

type Places = Vec<(SubscriberId, Grant)>;

/// Filters and who holds them. As deep as the deepest filter; whoever inserts bounds that.
#[derive(Debug, Default)]
pub struct Tree {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    here: Places,
    rest: Places,
    any: Option<Box<Node>>,
    below: HashMap<Box<str>, Node>,
}

impl Tree {
    /// Adds or replaces a subscription.
    pub fn insert(&mut self, filter: &str, who: SubscriberId, grant: Grant) {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            match level {
                "#" => return put(&mut node.rest, who, grant),
                "+" => node = node.any.get_or_insert_default(),
                name => node = node.below.entry(name.into()).or_default(),
            }
        }
        put(&mut node.here, who, grant);
    }

    /// Removes a subscription and the branches that nobody needs any more.
    pub fn remove(&mut self, filter: &str, who: SubscriberId) {
        self.root.remove(filter.split('/'), who);
    }

    /// Calls `found` for each subscription that `topic` matches. Wildcards at the front match no `$` topic.
    pub fn matches(&self, topic: &str, mut found: impl FnMut(SubscriberId, &Grant)) {
        self.root
            .visit(topic.split('/'), !topic.starts_with('$'), &mut found);
    }

    /// Whether there is no subscription at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

fn put(places: &mut Places, who: SubscriberId, grant: Grant) {
    match places.iter_mut().find(|(held, _)| *held == who) {
        Some(place) => place.1 = grant,
        None => places.push((who, grant)),
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.rest.is_empty() && self.any.is_none() && self.below.is_empty()
    }

    fn remove(&mut self, mut levels: Split<'_, char>, who: SubscriberId) {
        match levels.next() {
            None => self.here.retain(|(held, _)| *held != who),
            Some("#") => self.rest.retain(|(held, _)| *held != who),
            Some("+") => {
                if let Some(any) = &mut self.any {
                    any.remove(levels, who);
                    self.any.take_if(|any| any.is_empty());
                }
            }
            Some(name) => {
                if let Some(below) = self.below.get_mut(name) {
                    below.remove(levels, who);
                    if below.is_empty() {
                        self.below.remove(name);
                    }
                }
            }
        }
    }

    fn visit(&self, mut levels: Split<'_, char>, wild: bool, found: &mut impl FnMut(SubscriberId, &Grant)) {
        if wild {
            self.rest.iter().for_each(|(who, grant)| found(*who, grant));
        }
        match levels.next() {
            None => self.here.iter().for_each(|(who, grant)| found(*who, grant)),
            Some(name) => {
                if let Some(below) = self.below.get(name) {
                    below.visit(levels.clone(), true, found);
                }
                if let Some(any) = self.any.as_ref().filter(|_| wild) {
                    any.visit(levels, true, found);
                }
            }
        }
    }
}

/// Whether `topic` matches `filter`, without a tree: for retained messages.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut names = topic.split('/');
    let mut first = topic.starts_with('$');
    for level in filter.split('/') {
        match (level, names.next()) {
            ("#" | "+", _) if first => return false,
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == name => {}
            _ => return false,
        }
        first = false;
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: &[(&str, &str, bool)] = &[
        ("a/b", "a/b", true),
        ("a/+", "a/b", true),
        ("a/+", "a/b/c", false),
        ("a/+", "a", false),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("#", "a/b", true),
        ("#", "$SYS/x", false),
        ("+/x", "$SYS/x", false),
        ("$SYS/#", "$SYS/x", true),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("+", "/a", false),
        ("é/+", "é/日本", true),
        ("+/b/#", "a/b", true),
        ("a/+/c", "a//c", true),
    ];

    #[test]
    fn wildcards_match_as_the_standard_says_in_tree_and_alone() {
        for (filter, topic, expected) in CASES {
            assert_eq!(matches(filter, topic), *expected, "{filter} {topic}");
            let mut tree = Tree::default();
            tree.insert(filter, 1, Grant::default());
            let mut found = 0;
            tree.matches(topic, |_, _| found += 1);
            assert_eq!(found == 1, *expected, "{filter} {topic} in the tree");
        }
    }

    #[test]
    fn a_subscription_again_replaces_the_old_one() {
        let mut tree = Tree::default();
        tree.insert("a/+", 1, Grant::default());
        tree.insert(
            "a/+",
            1,
            Grant {
                qos: 2,
                ..Grant::default()
            },
        );
        let mut found = Vec::new();
        tree.matches("a/b", |who, grant| found.push((who, grant.qos)));
        assert_eq!(found, [(1, 2)]);
    }

    #[test]
    fn nothing_is_left_of_what_is_removed() {
        let mut tree = Tree::default();
        for (filter, _, _) in CASES {
            tree.insert(filter, 1, Grant::default());
            tree.insert(filter, 2, Grant::default());
        }
        for (filter, _, _) in CASES {
            tree.remove(filter, 1);
            tree.remove("never/was/there", 1);
            tree.remove(filter, 2);
        }
        assert!(tree.is_empty());
    }
}
