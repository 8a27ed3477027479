//! The lines of a GPU file: text to assignments of values to keys, or the first line that is wrong. Pure.
//!
//! The file is the part of YAML in which one line is one entry: `key: value` at the top, `gpu 3:` or `gpu 0-7:` with
//! indented lines or a product behind it. Reasons are word for word those of the C library.

use std::{fmt, ops::RangeInclusive};

use super::vocabulary::{Key, Scope, VOCABULARY};

const MAX_FILE_BYTES: usize = 262_144;
const MAX_LINE_BYTES: usize = 1000;
const MAX_ASSIGNMENTS: usize = 4096;
const MAX_SECTIONS: usize = 128;
pub const MAX_GPUS: usize = 64;

/// Why a file was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for Refusal {}

/// One value of one key, for the file or for some GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment<'a> {
    pub line: usize,
    pub gpus: RangeInclusive<usize>,
    pub key: &'static Key,
    pub value: &'a str,
}

/// What a file says, in the order of its lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scanned<'a> {
    pub assignments: Vec<Assignment<'a>>,
    pub sections: Vec<RangeInclusive<usize>>,
}

/// At most 60 bytes of a text that came from the file.
pub fn shown(text: &str) -> &str {
    text.get(..60).unwrap_or(text)
}

pub fn scan(text: &[u8]) -> Result<Scanned<'_>, Refusal> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Refusal {
            line: 1,
            reason: "the file is too large".into(),
        });
    }
    let mut scanner = Scanner::default();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        scanner.line = index + 1;
        scanner.read_line(line).map_err(|reason| Refusal {
            line: index + 1,
            reason,
        })?;
    }
    Ok(scanner.out)
}

struct Section {
    gpus: RangeInclusive<usize>,
    indent: Option<usize>,
    given: Vec<&'static str>,
}

#[derive(Default)]
struct Scanner<'a> {
    out: Scanned<'a>,
    line: usize,
    given: Vec<&'static str>,
    headers: Vec<&'a str>,
    /// The section whose lines may follow.
    open: Option<Section>,
}

impl<'a> Scanner<'a> {
    fn read_line(&mut self, line: &'a [u8]) -> Result<(), String> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE_BYTES {
            return Err("the line is too long".into());
        }
        let line = std::str::from_utf8(line)
            .ok()
            .filter(|line| line.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
        let line = line.ok_or("a byte that is not printable ASCII")?;
        let entry = line.trim_start_matches(' ');
        if entry.is_empty() || entry.starts_with('#') {
            return Ok(());
        }
        let (name, rest) = split_entry(entry).ok_or("expected \"key: value\"")?;
        let value = read_scalar(rest)?;
        match line.len() - entry.len() {
            0 => self.read_file_line(name, value),
            indent => self.read_section_line(indent, name, value),
        }
    }

    fn read_file_line(&mut self, name: &'a str, value: &'a str) -> Result<(), String> {
        self.open = None;
        if let Some(numbers) = name.strip_prefix("gpu ").filter(|numbers| !numbers.is_empty()) {
            let gpus = self.read_header(name, numbers)?;
            if value.is_empty() {
                self.open = Some(Section {
                    gpus,
                    indent: None,
                    given: Vec::new(),
                });
                return Ok(());
            }
            let key = VOCABULARY
                .key(Scope::Gpu, "product")
                .ok_or("the table has no product")?;
            return self.assign(gpus, key, value);
        }
        let key = find_key(Scope::File, name, value, &mut self.given)?;
        self.assign(0..=0, key, value)
    }

    fn read_header(&mut self, name: &'a str, numbers: &str) -> Result<RangeInclusive<usize>, String> {
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let gpus = match (read_index(first), read_index(last)) {
            (Some(first), Some(last)) if first <= last => first..=last,
            _ => {
                let name = shown(name);
                return Err(format!(
                    "a section is \"gpu N\" or \"gpu FIRST-LAST\" with numbers below 64, not \"{name}\""
                ));
            }
        };
        if self.headers.contains(&name) {
            return Err(format!("\"{name}\" is given twice"));
        }
        if self.headers.len() == MAX_SECTIONS {
            return Err("the file has too many sections".into());
        }
        self.headers.push(name);
        self.out.sections.push(gpus.clone());
        Ok(gpus)
    }

    fn read_section_line(&mut self, indent: usize, name: &str, value: &'a str) -> Result<(), String> {
        let section = self.open.as_mut().ok_or("an indented line outside of a gpu section")?;
        if *section.indent.get_or_insert(indent) != indent {
            return Err("the lines of a section must be indented alike".into());
        }
        let key = find_key(Scope::Gpu, name, value, &mut section.given)?;
        let gpus = section.gpus.clone();
        self.assign(gpus, key, value)
    }

    fn assign(&mut self, gpus: RangeInclusive<usize>, key: &'static Key, value: &'a str) -> Result<(), String> {
        if self.out.assignments.len() == MAX_ASSIGNMENTS {
            return Err("the file has too many lines".into());
        }
        self.out.assignments.push(Assignment {
            line: self.line,
            gpus,
            key,
            value,
        });
        Ok(())
    }
}

fn find_key(scope: Scope, name: &str, value: &str, given: &mut Vec<&'static str>) -> Result<&'static Key, String> {
    let key = VOCABULARY
        .key(scope, name)
        .ok_or_else(|| format!("unknown key \"{}\"", shown(name)))?;
    if given.contains(&key.text) {
        return Err(format!("\"{name}\" is given twice"));
    }
    given.push(key.text);
    if value.is_empty() {
        return Err(format!("\"{name}\" needs a value"));
    }
    Ok(key)
}

/// At the first colon that ends the line or has a space behind it.
fn split_entry(entry: &str) -> Option<(&str, &str)> {
    let at = entry
        .match_indices(':')
        .map(|(at, _)| at)
        .find(|&at| matches!(entry.as_bytes().get(at + 1), None | Some(b' ')))?;
    (at > 0).then(|| (&entry[..at], &entry[at + 1..]))
}

/// Plain, "double" or 'single' quoted scalar up to an optional comment.
fn read_scalar(rest: &str) -> Result<&str, String> {
    let rest = rest.trim_start_matches(' ');
    if let Some(quote) = rest.chars().next().filter(|&first| first == '"' || first == '\'') {
        let (value, after) = rest[1..].split_once(quote).ok_or("a quote is not closed")?;
        if value.contains('\\') {
            return Err("a quoted value may not contain \\".into());
        }
        let comment = after.trim_start_matches(' ');
        let spaced = comment.len() < after.len();
        return if comment.is_empty() || (spaced && comment.starts_with('#')) {
            Ok(value)
        } else {
            Err("text after a closing quote".into())
        };
    }
    let comment = rest
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|&at| at == 0 || rest.as_bytes()[at - 1] == b' ');
    let value = rest[..comment.unwrap_or(rest.len())].trim_end_matches(' ');
    if value
        .chars()
        .next()
        .is_some_and(|first| !first.is_ascii_alphanumeric() && first != '/')
    {
        return Err("a value that begins with a sign must be quoted".into());
    }
    if value.ends_with(':') || value.contains(": ") {
        return Err("a value with a colon must be quoted".into());
    }
    Ok(value)
}

fn read_index(text: &str) -> Option<usize> {
    let plain = matches!(text.len(), 1 | 2)
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&index| index < MAX_GPUS)
}
