//! Neighbouring releases, of which nothing was recorded: the recorded answers in the shape of each row of
//! [`crate::release::TABLE`], the twin serving that shape, members of a later release, and what is no shape at all.

use super::{
    readers::{self, Reader},
    recording::{self, Recording},
    shape,
    stage::{self, Stage, port},
    suite::KNOWN,
};
use crate::release::{self, Row, TABLE, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strum::VariantArray as _;

/// What our clients make of a row: the same value but for these places in it.
const READ_OTHERWISE: [(&str, &str, &str); 2] = [
    (
        "the vote's threshold is no parameter",
        "validation_vote_threshold_basis_points: 5000",
        "validation_vote_threshold_basis_points: 0",
    ),
    (
        "coefficients move: a model's own factor is empty",
        r#"weight_scale_factor: Some("0.3024")"#,
        "weight_scale_factor: None",
    ),
];

/// The path without its query.
fn path(recording: &Recording) -> &str {
    recording.path.split('?').next().unwrap_or_default()
}

/// Every row with each recorded answer it changes, the first height of each endpoint.
pub fn cases() -> Vec<(&'static Row, Recording)> {
    let mut endpoints: BTreeMap<String, Recording> = BTreeMap::new();
    for recording in recording::all()
        .into_iter()
        .filter(|recording| recording.status == Some(200))
    {
        endpoints.entry(recording.endpoint.clone()).or_insert(recording);
    }
    let changed = |row: &'static Row| {
        let of_row = |recording: &&Recording| {
            let mut body = recording.body.clone();
            if row.applies(row.from, port(&recording.door), path(recording)) {
                (row.change)(&mut body);
            }
            body != recording.body
        };
        let names: Vec<String> = endpoints
            .values()
            .filter(of_row)
            .map(|recording| recording.name.clone())
            .collect();
        names
    };
    let all = recording::all;
    TABLE
        .iter()
        .flat_map(|row| {
            let names = changed(row);
            let recordings = all()
                .into_iter()
                .filter(move |recording| names.contains(&recording.name));
            recordings.map(move |recording| (row, recording))
        })
        .collect()
}

#[test]
fn what_a_row_changes_is_read_as_the_same_or_as_the_row_means_it() {
    let cases = cases();
    for row in TABLE {
        assert!(
            cases.iter().any(|(of, _)| of.what == row.what),
            "{}: changes nothing recorded",
            row.what
        );
    }
    for (row, recording) in cases {
        let Some(reader) = readers::of(&recording.endpoint) else {
            continue;
        };
        let mut body = recording.body.clone();
        (row.change)(&mut body);
        let mut expected = reader(&recording.body, stage::COLD).expect("the recorded one is read");
        for (_, from, to) in READ_OTHERWISE.iter().filter(|(what, ..)| *what == row.what) {
            assert!(expected.contains(from), "{}: {expected}", row.what);
            expected = expected.replace(from, to);
        }
        assert_eq!(
            reader(&body, stage::COLD),
            Ok(expected),
            "{}: {}",
            row.what,
            recording.name
        );
    }
}

#[tokio::test]
async fn the_twin_serves_every_releases_shape_and_our_clients_read_it() {
    for version in Version::VARIANTS {
        for height in [162, 182] {
            let stage = Stage::of(*version, height);
            for recording in recording::all().iter().filter(|recording| recording.height == height) {
                let (_, served) = stage.serve(recording).await;
                let mut told = recording.body.clone();
                release::shape(*version, port(&recording.door), path(recording), &mut told);
                let known = |line: &String| {
                    KNOWN
                        .iter()
                        .any(|(of, path)| recording.endpoint == *of && line.starts_with(path))
                };
                let wrong: Vec<String> = shape::differences(&told, &served)
                    .into_iter()
                    .filter(|line| !known(line))
                    .collect();
                assert!(wrong.is_empty(), "{version} {}: {wrong:?}", recording.name);
                if let Some(reader) = readers::of(&recording.endpoint) {
                    let read = reader(&served, &stage.address());
                    assert!(read.is_ok(), "{version} {}: {read:?}", recording.name);
                }
            }
        }
    }
}

/// The recorded answers that our clients read.
fn read() -> Vec<(Recording, Reader)> {
    let with_reader = |recording: Recording| readers::of(&recording.endpoint).map(|reader| (recording, reader));
    recording::all().into_iter().filter_map(with_reader).collect()
}

/// Puts a member nobody knows into every object that is not a number or a map.
fn extend(name: &str, value: &mut Value) {
    match value {
        Value::Object(fields) if !fields.contains_key("exponent") => {
            fields.iter_mut().for_each(|(name, field)| extend(name, field));
            // A node keeps what it does not know, to give it back; the maps' keys are data.
            if !["node", "models", "preserved_models"].contains(&name) {
                fields.insert("a_later_release".to_owned(), json!({"knows": ["more"]}));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| extend(name, item)),
        _ => {}
    }
}

#[test]
fn members_of_a_later_release_change_nothing() {
    for (recording, reader) in read() {
        let mut body = recording.body.clone();
        // The body of a node alone is a node.
        let name = if recording.endpoint == "admin-post-node" {
            "node"
        } else {
            ""
        };
        extend(name, &mut body);
        assert_ne!(body, recording.body);
        assert_eq!(
            reader(&body, stage::COLD),
            reader(&recording.body, stage::COLD),
            "{}",
            recording.name
        );
    }
}

/// Pointers to all members at every depth.
fn pointers(at: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                found.push(at.clone());
                pointers(&at, field, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                found.push(format!("{at}/{index}"));
                pointers(&format!("{at}/{index}"), item, found);
            }
        }
        _ => {}
    }
}

/// A member in a shape that no release has is an error, or a member that is not read: never another value.
#[test]
fn a_shape_of_no_release_is_an_error_and_never_a_guess() {
    let (mut guesses, mut errors) = (Vec::new(), 0);
    for (recording, reader) in read() {
        let told = reader(&recording.body, stage::COLD);
        let mut places = Vec::new();
        pointers("", &recording.body, &mut places);
        for place in places {
            for odd in [json!({"no": ["release"]}), json!([["has", "this"]]), json!(true)] {
                let mut body = recording.body.clone();
                let member = body.pointer_mut(&place).expect("a member");
                if shape::kind(member) == shape::kind(&odd) {
                    continue;
                }
                *member = odd.clone();
                match reader(&body, stage::COLD) {
                    Err(_) => errors += 1,
                    read if read == told => {}
                    read => guesses.push(format!("{} {place} = {odd}: {read:?}", recording.name)),
                }
            }
        }
    }
    assert!(errors > 1000, "only {errors} were refused");
    assert!(guesses.is_empty(), "{} guesses:\n{}", guesses.len(), guesses.join("\n"));
}
