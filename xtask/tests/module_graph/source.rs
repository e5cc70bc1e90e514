//! Reads the modules of a crate: which names they define, pass on and use. By tokens, so macros are seen through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use proc_macro2::token_stream::IntoIter;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Segments from the crate's root, or as written.
pub(crate) type Segments = Vec<String>;

/// One module, files and inline modules alike.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Its child modules.
    pub(crate) children: BTreeSet<String>,
    /// Names that a `use` binds, with their paths as written.
    pub(crate) bindings: BTreeMap<String, Segments>,
    /// Paths of `use ..::*`, as written.
    pub(crate) globs: Vec<Segments>,
    /// Names of its own items.
    pub(crate) items: BTreeSet<String>,
    /// Paths that it names outside of re-exports, as written.
    pub(crate) used: BTreeSet<Segments>,
}

/// The modules by their path from the root, which is the empty path.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    pub(crate) modules: BTreeMap<Segments, Module>,
}

type Tokens = Peekable<IntoIter>;

impl Crate {
    /// Reads the crate with this root file.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut parsed = Self::default();
        let folder = root.parent().context("a root file has a folder")?;
        parsed.read_file(root, folder, &Vec::new())?;
        Ok(parsed)
    }

    /// `folder` is where the files of child modules are.
    fn read_file(&mut self, file: &Path, folder: &Path, path: &Segments) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{}: {error}", file.display()))?;
        self.read_module(tokens, folder, path)
    }

    fn read_module(&mut self, tokens: TokenStream, folder: &Path, path: &Segments) -> Result<()> {
        let mut module = Module::default();
        let inner = module.read_items(tokens);
        for (name, body) in inner {
            let child: Segments = path.iter().chain([&name]).cloned().collect();
            let beside = folder.join(&name);
            match body {
                Some(body) => self.read_module(body, &beside, &child)?,
                None => self.read_file(&file_of(folder, &name), &beside, &child)?,
            }
            module.children.insert(name);
        }
        self.modules.insert(path.clone(), module);
        Ok(())
    }
}

fn file_of(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(format!("{name}.rs"));
    if file.exists() { file } else { folder.join(name).join("mod.rs") }
}

/// A child module's name, and its body if it is inline.
type Child = (String, Option<TokenStream>);

impl Module {
    /// The items of a module; answers its child modules, those of tests left out.
    fn read_items(&mut self, tokens: TokenStream) -> Vec<Child> {
        let mut children = Vec::new();
        let mut tokens = tokens.into_iter().peekable();
        let (mut is_test, mut is_public) = (false, false);
        while let Some(token) = tokens.next() {
            let ident = match &token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    is_test |= tokens.next().is_some_and(|attribute| is_cfg_test(&attribute));
                    continue;
                }
                TokenTree::Ident(ident) => ident.to_string(),
                _ => String::new(),
            };
            match ident.as_str() {
                "pub" => {
                    is_public = true;
                    tokens.next_if(is_scope);
                    continue;
                }
                "use" => self.read_use(statement(&mut tokens), is_public, is_test),
                "mod" => {
                    let name = name(&mut tokens);
                    let body = match tokens.next() {
                        Some(TokenTree::Group(group)) => Some(group.stream()),
                        _ => None,
                    };
                    if !is_test {
                        children.push((name, body));
                    }
                }
                _ if is_test => skip_item(&token, &mut tokens),
                "struct" | "enum" | "union" | "trait" | "type" | "fn" | "static" | "macro_rules"
                | "const" => {
                    self.items.insert(name(&mut tokens));
                    continue;
                }
                _ => self.read_code(&token, &mut tokens),
            }
            (is_test, is_public) = (false, false);
        }
        children
    }

    /// One token of code, with the path that begins there.
    fn read_code(&mut self, token: &TokenTree, tokens: &mut Tokens) {
        match token {
            TokenTree::Group(group) => {
                let mut inner = group.stream().into_iter().peekable();
                while let Some(token) = inner.next() {
                    if is(&token, "use") && !inner.peek().is_some_and(|next| is(next, "<")) {
                        self.read_use(statement(&mut inner), false, false);
                    } else {
                        self.read_code(&token, &mut inner);
                    }
                }
            }
            TokenTree::Ident(first) if first == "pub" => drop(tokens.next_if(is_scope)),
            TokenTree::Ident(first) => {
                let mut path = vec![first.to_string()];
                while colons(tokens) {
                    match tokens.peek() {
                        Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                        _ => break,
                    }
                    tokens.next();
                }
                // One name alone is a type's, which a re-export may have brought, or something local.
                if path.len() > 1 || path[0].starts_with(char::is_uppercase) {
                    self.used.insert(path);
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }

    fn read_use(&mut self, tree: Vec<TokenTree>, is_public: bool, is_test: bool) {
        if is_test {
            return;
        }
        for (path, name) in leaves(tree.into_iter().collect(), &Vec::new()) {
            match name {
                Some(name) => drop(self.bindings.insert(name, path.clone())),
                None => self.globs.push(path.clone()),
            }
            if !is_public {
                self.used.insert(path);
            }
        }
    }
}

/// The paths of a `use`, each with the name that it binds; none for a glob.
fn leaves(tree: TokenStream, prefix: &Segments) -> Vec<(Segments, Option<String>)> {
    let mut path = prefix.clone();
    let mut tokens = tree.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match &token {
            TokenTree::Ident(ident) if ident == "as" => {
                let name = tokens.next().map(|name| name.to_string());
                return vec![(path, name)];
            }
            TokenTree::Ident(ident) if ident == "self" && path != *prefix => {}
            TokenTree::Ident(ident) if ident == "self" && !prefix.is_empty() => {}
            TokenTree::Ident(ident) => path.push(ident.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == '*' => return vec![(path, None)],
            TokenTree::Group(group) => {
                let all: Vec<TokenTree> = group.stream().into_iter().collect();
                let trees = all.split(|token| is(token, ","));
                let trees = trees.filter(|tree| !tree.is_empty());
                return trees.flat_map(|tree| leaves(tree.iter().cloned().collect(), &path)).collect();
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    let name = path.last().cloned();
    vec![(path, name)]
}

/// The tokens up to the semicolon.
fn statement(tokens: &mut Tokens) -> Vec<TokenTree> {
    tokens.by_ref().take_while(|token| !is(token, ";")).collect()
}

/// The next name, also that of a macro or a `const fn`.
fn name(tokens: &mut Tokens) -> String {
    let mut names = tokens.by_ref().filter_map(|token| match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    });
    names.find(|name| !["fn", "unsafe", "extern", "mut"].contains(&name.as_str())).unwrap_or_default()
}

/// What follows `pub` in `pub(in path)`: it names a module and uses nothing of it. The field of a tuple struct, which
/// may be a tuple, begins otherwise.
fn is_scope(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Parenthesis
        && first.is_some_and(|first| ["in", "crate", "super", "self"].iter().any(|word| is(&first, word)))
}

fn skip_item(first: &TokenTree, tokens: &mut Tokens) {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is(token, ";"),
    };
    let _last = if ends(first) { None } else { tokens.find(ends) };
}

fn is_cfg_test(attribute: &TokenTree) -> bool {
    attribute.to_string().replace(' ', "").starts_with("[cfg(test")
}

fn is(token: &TokenTree, text: &str) -> bool {
    !matches!(token, TokenTree::Group(_)) && token.to_string() == text
}

/// Takes `::` if it comes next.
fn colons(tokens: &mut Tokens) -> bool {
    let is_colon = |token: &TokenTree| is(token, ":");
    // A single colon is followed by a type: taking it loses nothing.
    tokens.next_if(is_colon).is_some() && tokens.next_if(is_colon).is_some()
}
