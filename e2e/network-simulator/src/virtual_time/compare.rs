//! Whether two histories are the same to the byte, and where they first are not.

use super::history::{FACTS, LEDGER};
use serde_json::Value;
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// A history could not be read.
#[derive(Debug, Error)]
#[error("{path} cannot be read")]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// The first difference, in words; nothing when there is none.
pub fn first_difference(one: &Path, other: &Path) -> Result<Option<String>, Error> {
    for name in [LEDGER, FACTS] {
        if let Some(found) = in_file(&one.join(name), &other.join(name))? {
            return Ok(Some(format!("{name}, {found}")));
        }
    }
    Ok(None)
}

fn in_file(one: &Path, other: &Path) -> Result<Option<String>, Error> {
    let open = |path: &Path| {
        File::open(path)
            .map(|file| BufReader::new(file).split(b'\n'))
            .map_err(|source| Error {
                path: path.to_owned(),
                source,
            })
    };
    let (mut ones, mut others) = (open(one)?, open(other)?);
    let read = |next: Option<io::Result<Vec<u8>>>, path: &Path| {
        next.transpose().map_err(|source| Error {
            path: path.to_owned(),
            source,
        })
    };
    let mut number = 0;
    loop {
        number += 1;
        match (read(ones.next(), one)?, read(others.next(), other)?) {
            (None, None) => return Ok(None),
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) => return Ok(Some(format!("line {number}: {}", in_line(&one, &other)))),
            (Some(_), None) => return Ok(Some(format!("line {number}: is only in the first"))),
            (None, Some(_)) => return Ok(Some(format!("line {number}: is only in the second"))),
        }
    }
}

fn in_line(one: &[u8], other: &[u8]) -> String {
    let (Some(one_value), Some(other_value)) = (value(one), value(other)) else {
        let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
        return format!("byte {same}");
    };
    let title = title(&one_value);
    match in_value(&one_value, &other_value, "") {
        Some((path, one, other)) => format!("{title}{path} is {one} in the first and {other} in the second"),
        None => format!("{title}the order of fields"),
    }
}

/// A line is a value, with or without a comma; the first of a ledger ends where its exams begin.
fn value(line: &[u8]) -> Option<Value> {
    let line = line.strip_suffix(b",").unwrap_or(line);
    let closed = || [line, b"]}"].concat();
    serde_json::from_slice(line)
        .or_else(|_| serde_json::from_slice(&closed()))
        .ok()
}

/// What line it is, in words.
fn title(value: &Value) -> String {
    let field = |name: &str| value.get(name).filter(|value| !value.is_null());
    match (field("kind"), field("epoch"), field("start_height"), field("at")) {
        (Some(kind), Some(epoch), Some(height), _) => {
            format!("{} of epoch {epoch} at {height}: ", kind.as_str().unwrap_or_default())
        }
        (.., Some(at)) => format!("{}: ", at.as_str().unwrap_or_default()),
        _ => field("index").map_or_else(String::new, |index| format!("epoch {index}: ")),
    }
}

fn in_value(one: &Value, other: &Value, path: &str) -> Option<(String, String, String)> {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            let names = ones
                .keys()
                .chain(others.keys().filter(|name| !ones.contains_key(*name)));
            let mut pairs = names.map(|name| {
                let dot = if path.is_empty() { "" } else { "." };
                (format!("{path}{dot}{name}"), ones.get(name), others.get(name))
            });
            pairs.find_map(|(path, one, other)| in_member(one, other, &path))
        }
        (Value::Array(ones), Value::Array(others)) => (0..ones.len().max(others.len())).find_map(|index| {
            let path = format!("{path}[{index}]");
            in_member(ones.get(index), others.get(index), &path)
        }),
        _ => (one != other).then(|| (path.to_owned(), one.to_string(), other.to_string())),
    }
}

fn in_member(one: Option<&Value>, other: Option<&Value>, path: &str) -> Option<(String, String, String)> {
    let text = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
    match (one, other) {
        (Some(one), Some(other)) => in_value(one, other, path),
        _ => Some((path.to_owned(), text(one), text(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histories(one: &str, other: &str) -> Option<String> {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(&path).expect("a directory");
            std::fs::write(path.join(LEDGER), text).expect("a file");
            std::fs::write(path.join(FACTS), "").expect("a file");
            path
        };
        first_difference(&write("one", one), &write("other", other)).expect("readable")
    }

    #[test]
    fn the_first_field_that_differs_is_named() {
        let line = |accepted: u64| {
            format!(
                "{{\"exams\":[\n{{\"kind\":\"Sprint\",\"epoch\":2,\"start_height\":60,\"hosts\":[{{\"accepted\":{accepted},\"z\":1}}]}},\n"
            )
        };
        assert_eq!(histories(&line(5), &line(5)), None);
        assert_eq!(
            histories(&line(5), &line(6)).as_deref(),
            Some(
                "ledger.json, line 2: Sprint of epoch 2 at 60: hosts[0].accepted is 5 in the first and 6 in the second"
            )
        );
    }

    #[test]
    fn what_stands_before_the_exams_is_compared_by_name_too() {
        assert_eq!(
            histories("{\"seed\":1,\"exams\":[\n", "{\"seed\":5,\"exams\":[\n").as_deref(),
            Some("ledger.json, line 1: seed is 1 in the first and 5 in the second")
        );
    }

    #[test]
    fn a_line_more_is_a_difference() {
        assert_eq!(
            histories("{}\n{}\n", "{}\n").as_deref(),
            Some("ledger.json, line 2: is only in the first")
        );
    }
}
