//! Whether a value suits its key; the reasons are word for word those of the C library. Pure.

use super::{
    scan::shown,
    vocabulary::{Key, Kind, VOCABULARY},
};

const MAX_XIDS: usize = 64;
const MAX_PROCESSES: usize = 32;
const MAX_PID: u64 = 4_194_304;
const MAX_DIGITS: usize = 15;

pub fn check(key: &Key, value: &str) -> Result<(), String> {
    let text = key.text;
    match key.kind {
        Kind::Int | Kind::Memory => check_int(key, value),
        Kind::Flag if value == "true" || value == "false" => Ok(()),
        Kind::Flag => Err(format!("\"{text}\" must be true or false")),
        Kind::Text => check_text(key, value),
        Kind::Uuid if has_shape(value, "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") => Ok(()),
        Kind::Uuid => Err(format!(
            "\"{text}\" must look like GPU-01234567-89ab-cdef-0123-456789abcdef"
        )),
        Kind::Pci if has_shape(value, "XXXXXXXX:XX:00.0") => Ok(()),
        Kind::Pci => Err(format!("\"{text}\" must look like 00000000:1B:00.0")),
        Kind::Product if VOCABULARY.product(value).is_some() => Ok(()),
        Kind::Product => Err(format!("unknown product \"{}\"", shown(value))),
        Kind::Word => check_word(key, value),
        Kind::Reasons => items(value).try_for_each(|item| check_word(key, item)),
        Kind::Links => items(value).try_for_each(|item| check_int(key, item)),
        Kind::Xids => items(value).enumerate().try_for_each(|(index, item)| match index {
            MAX_XIDS => Err(format!("\"{text}\" has more than {MAX_XIDS} entries")),
            _ => check_int(key, item),
        }),
        Kind::Processes => check_processes(key, value),
        Kind::Errors => items(value).try_for_each(check_error),
        Kind::Hangs => items(value).try_for_each(|item| check_int(key, strip_function(item)?)),
    }
}

/// The parts between commas; none of "none".
pub fn items(value: &str) -> impl Iterator<Item = &str> {
    let list = if value == "none" { None } else { Some(value) };
    list.into_iter()
        .flat_map(|list| list.split(','))
        .map(|item| item.trim_matches(' '))
}

fn number(text: &str) -> Option<u64> {
    let plain = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (plain && (text.len() == 1 || !text.starts_with('0')))
        .then(|| text.parse().ok())
        .flatten()
}

fn check_int(key: &Key, value: &str) -> Result<(), String> {
    let Key { text, low, high, .. } = key;
    match number(value) {
        Some(number) if (*low..=*high).contains(&number) => Ok(()),
        _ => Err(format!("\"{text}\" must be a whole number between {low} and {high}")),
    }
}

fn check_text(key: &Key, value: &str) -> Result<(), String> {
    let Key { text, low, high, .. } = key;
    let fits = (*low..=*high).contains(&(value.len() as u64));
    if fits {
        Ok(())
    } else {
        Err(format!("\"{text}\" must have {low} to {high} characters"))
    }
}

fn check_word(key: &Key, value: &str) -> Result<(), String> {
    let known = VOCABULARY.words.contains(&(key.member, value));
    if known {
        Ok(())
    } else {
        Err(format!("\"{}\" has no word \"{}\"", key.text, shown(value)))
    }
}

fn check_processes(key: &Key, value: &str) -> Result<(), String> {
    let text = key.text;
    items(value).enumerate().try_for_each(|(index, item)| {
        if index == MAX_PROCESSES {
            return Err(format!("\"{text}\" has more than {MAX_PROCESSES} entries"));
        }
        let (pid, mib) = item.split_once('=').unwrap_or((item, ""));
        let pid = number(pid.trim_matches(' ')).filter(|pid| (1..=MAX_PID).contains(pid));
        let mib = number(mib.trim_matches(' ')).filter(|mib| (key.low..=key.high).contains(mib));
        pid.zip(mib)
            .map(|_| ())
            .ok_or_else(|| format!("\"{text}\" must be PID=MIB, PID=MIB, ..."))
    })
}

fn check_error(item: &str) -> Result<(), String> {
    let code = strip_function(item)?;
    let known = VOCABULARY.returns.contains(&code);
    if known {
        Ok(())
    } else {
        Err(format!("unknown error \"{}\"", shown(code)))
    }
}

/// What stands behind the "=" of a fault that names a function, or all of one that does not.
fn strip_function(item: &str) -> Result<&str, String> {
    let Some((name, rest)) = item.split_once('=') else {
        return Ok(item);
    };
    let name = name.trim_matches(' ');
    let versioned = name.len() > 3 && name.get(name.len() - 3..name.len() - 1) == Some("_v");
    let base = if versioned { &name[..name.len() - 3] } else { name };
    if VOCABULARY.functions.contains(&base) {
        Ok(rest.trim_matches(' '))
    } else {
        Err(format!("unknown function \"{}\"", shown(name)))
    }
}

/// In `shape`, 'x' stands for a lower-case hex digit, 'X' for an upper-case one, anything else for itself.
fn has_shape(value: &str, shape: &str) -> bool {
    value.len() == shape.len()
        && value.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
            b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            b'X' => byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte),
            other => byte == other,
        })
}
