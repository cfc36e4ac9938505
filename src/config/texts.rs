//! The files of one configuration, one behind the other: a span counts from the beginning of the first of them, so
//! that it also says which file it is of.

use std::{ops::Range, path::PathBuf};

/// A file of the configuration, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileText {
    /// Where it was, as the command line or an `include` named it.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

impl FileText {
    /// As reports call it.
    pub(super) fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// All files, the main one first. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Texts(Vec<FileText>);

impl Texts {
    pub fn new(main: FileText) -> Self {
        Self(vec![main])
    }

    /// One text, which reports call `shown`.
    pub fn alone(shown: &str, text: &str) -> Self {
        Self::new(FileText {
            path: shown.into(),
            text: text.to_owned(),
        })
    }

    pub fn push(&mut self, file: FileText) {
        self.0.push(file);
    }

    pub fn files(&self) -> &[FileText] {
        &self.0
    }

    pub fn into_files(self) -> Vec<FileText> {
        self.0
    }

    /// Each file behind as many blanks as it takes for its spans to count from the beginning of the first. The
    /// blanks are one line, so lines count from its own.
    pub fn padded(&self) -> impl Iterator<Item = String> {
        self.0.iter().scan(0, |start, file| {
            let mut padded = " ".repeat(*start);
            match file.text.strip_prefix('\u{feff}') {
                // The mark of UTF-8, which is one only at the very beginning.
                Some(rest) => {
                    padded.push_str("   ");
                    padded.push_str(rest);
                }
                None => padded.push_str(&file.text),
            }
            *start += room(file);
            Some(padded)
        })
    }

    /// The file at `index` as it parses, and where that stands among all.
    pub fn placed(&self, index: usize) -> Option<(usize, &str)> {
        let text = self.0.get(index)?.text.as_str();
        let before: usize = self.0.iter().take(index).map(room).sum();
        Some(match text.strip_prefix('\u{feff}') {
            Some(rest) => (before + text.len() - rest.len(), rest),
            None => (before, text),
        })
    }

    /// Which file `span` is of, by its index, and where in it.
    pub fn place(&self, span: &Range<usize>) -> (usize, Range<usize>) {
        let mut start = 0;
        for (index, file) in self.0.iter().enumerate() {
            if span.start < start + room(file) {
                return (index, span.start - start..span.end - start);
            }
            start += room(file);
        }
        (0, 0..0)
    }

    /// The text at `span`; empty if there is none.
    pub fn at(&self, span: &Range<usize>) -> &str {
        let (index, local) = self.place(span);
        self.0
            .get(index)
            .and_then(|file| file.text.get(local))
            .unwrap_or("")
    }
}

/// What a file takes up: one more, so that its end is not the beginning of the next.
fn room(file: &FileText) -> usize {
    file.text.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Texts {
        let file = |path: &str, text: &str| FileText {
            path: path.into(),
            text: text.into(),
        };
        let mut texts = Texts::new(file("a", "x = 1\n"));
        texts.push(file("b", ""));
        texts.push(file("c", "\u{feff}y = 2\n"));
        texts
    }

    #[test]
    fn a_span_says_which_file_it_is_of() {
        let texts = texts();
        let padded: Vec<String> = texts.padded().collect();
        let y = padded[2].find('y').expect("it is there");
        assert_eq!(texts.at(&(y..y + 1)), "y");
        let (start, text) = texts.placed(2).expect("it is there");
        assert_eq!(start + text.find('y').expect("it is there"), y);
        assert_eq!(texts.place(&(y..y + 1)).0, 2);
        assert_eq!(texts.place(&(6..6)), (0, 6..6), "the end of the first");
        assert_eq!(texts.place(&(7..7)), (1, 0..0), "the end of the empty one");
        assert_eq!(texts.place(&(99..100)), (0, 0..0));
    }

    #[test]
    fn what_is_behind_blanks_is_still_toml() {
        for text in texts().padded() {
            toml::de::DeTable::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
