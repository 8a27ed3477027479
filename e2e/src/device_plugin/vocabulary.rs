//! The table of keys, words and names of a GPU file: `simulated-nvml/format.def`, which the C library reads as macros.

use std::sync::LazyLock;

const TABLE: &str = include_str!("../../simulated-nvml/format.def");

/// Where a key may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    File,
    Gpu,
}

/// How the value of a key is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Flag,
    Text,
    Uuid,
    Pci,
    Product,
    Memory,
    Word,
    Reasons,
    Links,
    Xids,
    Processes,
    Errors,
    Hangs,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    pub scope: Scope,
    pub member: &'static str,
    pub text: &'static str,
    pub kind: Kind,
    pub low: u64,
    pub high: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Product {
    pub word: &'static str,
    pub memory_mib: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Vocabulary {
    pub keys: Vec<Key>,
    /// (member of the key, word)
    pub words: Vec<(&'static str, &'static str)>,
    pub products: Vec<Product>,
    pub returns: Vec<&'static str>,
    pub functions: Vec<&'static str>,
}

/// The table of this build.
pub static VOCABULARY: LazyLock<Vocabulary> =
    LazyLock::new(|| read(TABLE).expect("the table is part of this program and a test reads it"));

impl Vocabulary {
    pub fn key(&self, scope: Scope, text: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.scope == scope && key.text == text)
    }

    pub fn product(&self, word: &str) -> Option<&Product> {
        self.products.iter().find(|product| product.word == word)
    }
}

fn read(table: &'static str) -> Option<Vocabulary> {
    let mut out = Vocabulary::default();
    for line in table.lines() {
        let Some((entry, rest)) = line.split_once('(') else {
            continue;
        };
        let Some(inner) = rest.strip_suffix(')') else { continue };
        let fields: Vec<&'static str> = inner.split(", ").map(|field| field.trim_matches('"')).collect();
        match (entry, fields.as_slice()) {
            ("KEY", [scope, member, text, kind, low, high]) => out.keys.push(Key {
                scope: scope_of(scope)?,
                member,
                text,
                kind: kind_of(kind)?,
                low: low.parse().ok()?,
                high: high.parse().ok()?,
            }),
            ("WORD", [set, word, _]) => out.words.push((set, word)),
            ("PRODUCT", [word, mib]) => out.products.push(Product {
                word,
                memory_mib: mib.parse().ok()?,
            }),
            ("RETURN", [name, _]) => out.returns.push(name),
            ("FUNCTION", [name]) => out.functions.push(name),
            _ => {}
        }
    }
    Some(out)
}

fn scope_of(word: &str) -> Option<Scope> {
    match word {
        "FILE" => Some(Scope::File),
        "GPU" => Some(Scope::Gpu),
        _ => None,
    }
}

fn kind_of(word: &str) -> Option<Kind> {
    Some(match word {
        "INT" => Kind::Int,
        "FLAG" => Kind::Flag,
        "TEXT" => Kind::Text,
        "UUID" => Kind::Uuid,
        "PCI" => Kind::Pci,
        "PRODUCT" => Kind::Product,
        "MEMORY" => Kind::Memory,
        "WORD" => Kind::Word,
        "REASONS" => Kind::Reasons,
        "LINKS" => Kind::Links,
        "XIDS" => Kind::Xids,
        "PROCESSES" => Kind::Processes,
        "ERRORS" => Kind::Errors,
        "HANGS" => Kind::Hangs,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_table_is_read() {
        let entries = |name: &str| {
            TABLE
                .lines()
                .filter(|line| line.starts_with(&format!("{name}(")))
                .count()
        };
        let vocabulary = read(TABLE).unwrap();
        assert_eq!(vocabulary.keys.len(), entries("KEY"));
        assert_eq!(vocabulary.words.len(), entries("WORD"));
        assert_eq!(vocabulary.products.len(), entries("PRODUCT"));
        assert_eq!(vocabulary.returns.len(), entries("RETURN"));
        assert_eq!(vocabulary.functions.len(), entries("FUNCTION"));
        assert!(vocabulary.functions.len() > 100);
        assert_eq!(vocabulary.key(Scope::Gpu, "temperature").unwrap().high, 130);
        assert_eq!(vocabulary.product("H200").unwrap().memory_mib, 143_771);
    }
}
