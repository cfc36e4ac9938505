//! The house as the compiler sees it: its modules from the root, and every path that their code names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The crate as the compiler sees it, from its root.
#[derive(Default)]
pub struct House {
    /// Without test code.
    pub modules: Vec<Module>,
    /// With test code.
    pub files: BTreeSet<PathBuf>,
}

/// One file of it.
pub struct Module {
    /// Below the root: `["rule", "engine"]`.
    pub path: Vec<String>,
    pub file: PathBuf,
    pub syntax: syn::File,
}

impl Module {
    pub fn finding(&self, name: &Name, problem: &str) -> String {
        format!("{}:{}: {problem}", self.file.display(), name.line)
    }
}

impl House {
    fn enter(&mut self, path: Vec<String>, file: PathBuf, test: bool) {
        let syntax = syn::parse_file(&read(&file)).expect("the file parses: it compiles");
        let test = test || is_test(&syntax.attrs);
        self.files.insert(file.clone());
        // The root's children are its neighbours, anybody else's are in the directory of its name.
        let below = if path.is_empty() {
            root().join("src")
        } else {
            file.with_extension("")
        };
        self.descend(&syntax.items, &path, &below, test);
        if !test {
            self.modules.push(Module { path, file, syntax });
        }
    }

    fn descend(&mut self, items: &[syn::Item], path: &[String], below: &Path, test: bool) {
        for item in items {
            let syn::Item::Mod(module) = item else { continue };
            let name = spelled(&module.ident);
            let path = [path, std::slice::from_ref(&name)].concat();
            let test = test || is_test(&module.attrs);
            match &module.content {
                Some((_, items)) => self.descend(items, &path, &below.join(&name), test),
                None => self.enter(path, below.join(name).with_extension("rs"), test),
            }
        }
    }

    pub fn tops(&self) -> BTreeSet<String> {
        self.modules
            .iter()
            .filter_map(|module| module.path.first().cloned())
            .collect()
    }
}

pub fn house() -> House {
    let mut house = House::default();
    house.enter(Vec::new(), root().join("src/lib.rs"), false);
    house.enter(vec!["main".to_owned()], root().join("src/main.rs"), false);
    house
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(file: &Path) -> String {
    let text = fs::read_to_string(file);
    assert!(text.is_ok(), "could not read {}: {text:?}", file.display());
    text.unwrap_or_default()
}

pub fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("a directory that opened can be listed").path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A path as written somewhere outside test code.
pub struct Name {
    /// The module it is written in, inline ones included.
    pub within: Vec<String>,
    pub path: Vec<String>,
    pub line: usize,
}

impl Name {
    /// Where it leads below this crate's root; none if it leads elsewhere.
    pub fn resolved(&self) -> Option<Vec<String>> {
        let (first, rest) = self.path.split_first()?;
        let mut absolute = match first.as_str() {
            // The binary knows the library by its name.
            "crate" | "tidegate" => Vec::new(),
            "self" => self.within.clone(),
            "super" => self
                .within
                .split_last()
                .map(|(_, parent)| parent.to_vec())
                .unwrap_or_default(),
            _ => return None,
        };
        for segment in rest {
            match segment.as_str() {
                "super" => drop(absolute.pop()),
                "self" => {}
                name => absolute.push(name.to_owned()),
            }
        }
        Some(absolute)
    }
}

pub fn names(modules: &[Module]) -> impl Iterator<Item = (&Module, Name)> {
    modules.iter().flat_map(|module| {
        let mut collector = Names {
            within: module.path.clone(),
            found: Vec::new(),
        };
        collector.visit_file(&module.syntax);
        collector.found.into_iter().map(move |name| (module, name))
    })
}

struct Names {
    within: Vec<String>,
    found: Vec<Name>,
}

impl Names {
    fn add(&mut self, path: Vec<String>, line: usize) {
        self.found.push(Name {
            within: self.within.clone(),
            path,
            line,
        });
    }

    fn add_use(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let longer = |ident: &Ident| [prefix, &[spelled(ident)]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_use(&longer(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(longer(&name.ident), line(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(longer(&rename.ident), line(&rename.ident)),
            syn::UseTree::Glob(glob) => {
                let star = glob.star_token.spans.first().map_or(0, |span| span.start().line);
                self.add([prefix, &["*".to_owned()]].concat(), star);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(prefix, tree);
                }
            }
        }
    }

    /// The paths in tokens that nobody has parsed yet: a macro's input, an attribute's arguments.
    fn add_tokens(&mut self, tokens: TokenStream, prefix: &[String]) {
        let mut tokens = tokens.into_iter().peekable();
        let mut path = prefix.to_vec();
        let mut colons = 0;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        path = prefix.to_vec();
                    }
                    path.push(spelled(&ident));
                    colons = 0;
                    let goes_on =
                        matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == ':');
                    // A lone word is a variable more often than a module.
                    if !goes_on && path.len() > 1 {
                        self.add(path.clone(), line(&ident));
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Punct(punct) if punct.as_char() == '*' && colons == 2 => {
                    path.push("*".to_owned());
                    self.add(path.clone(), punct.span().start().line);
                    colons = 0;
                }
                // What follows a path and a colon may be generic arguments: the path was whole.
                TokenTree::Punct(punct) => {
                    if colons > 0 && path.len() > 1 {
                        self.add(path.clone(), punct.span().start().line);
                    }
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    let inner = if colons == 2 { path.clone() } else { Vec::new() };
                    self.add_tokens(group.stream(), &inner);
                    colons = 0;
                }
                // serde names functions and modules in strings.
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let text = text.trim_matches('"');
                    if ["crate::", "super::", "self::"]
                        .iter()
                        .any(|start| text.starts_with(start))
                    {
                        let path = text.split("::").map(str::to_owned).collect();
                        self.add(path, literal.span().start().line);
                    }
                    colons = 0;
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within.push(spelled(&item.ident));
        visit::visit_item_mod(self, item);
        self.within.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&[], &item.tree);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.add(vec![spelled(&item.ident)], line(&item.ident));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| spelled(&segment.ident))
            .collect();
        if let (true, Some(last)) = (segments.len() > 1, path.segments.last()) {
            self.add(segments, line(&last.ident));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.add_tokens(call.tokens.clone(), &[]);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.visit_path(attribute.path());
        // A link in the documentation is no import.
        if let (false, Some(tokens)) = (attribute.path().is_ident("doc"), arguments(attribute)) {
            self.add_tokens(tokens, &[]);
        }
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {
        // Who may see this is no import either.
    }
}

/// What stands in an attribute's parentheses.
pub fn arguments(attribute: &syn::Attribute) -> Option<TokenStream> {
    attribute.meta.require_list().ok().map(|list| list.tokens.clone())
}

/// Whether something is compiled for tests only: `cfg(test)` or `cfg(all(test, …))`, not `cfg(any(test, …))`.
pub fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .filter_map(arguments)
        .any(|tokens| {
            let mut tokens = tokens.into_iter();
            match (tokens.next(), tokens.next()) {
                (Some(TokenTree::Ident(only)), None) => only == "test",
                (Some(TokenTree::Ident(all)), Some(TokenTree::Group(group))) if all == "all" => group
                    .stream()
                    .into_iter()
                    .any(|token| token.to_string() == "test"),
                _ => false,
            }
        })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Without the `r#` of a raw identifier.
pub fn spelled(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").unwrap_or(&text).to_owned()
}

fn line(ident: &Ident) -> usize {
    ident.span().start().line
}
