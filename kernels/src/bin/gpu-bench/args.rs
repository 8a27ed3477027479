//! What the program is asked.

use std::{ffi::OsString, path::PathBuf, time::Duration};

pub(crate) const USAGE: &str = "usage: gpu-bench [--json FILE] [--write DOCS] [--python PROGRAM] [--replica FILE] [--experts FILE] | gpu-bench table DOCS | \
                                gpu-bench soak --minutes N";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Measure(Measure),
    Table(PathBuf),
    Soak(Soak),
}

/// A measurement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Where the report goes.
    pub(crate) json: Option<PathBuf>,
    /// Folder of the documents that take it in.
    pub(crate) write: Option<PathBuf>,
    pub(crate) python: PathBuf,
    pub(crate) replica: PathBuf,
    pub(crate) experts: PathBuf,
    /// Tests: the simulated driver and tiny models.
    pub(crate) simulated: bool,
}

/// A soak.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Soak {
    pub(crate) length: Duration,
    /// Tests: the simulated driver and a tiny model.
    pub(crate) simulated: bool,
}

pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Option<Task> {
    let mut arguments = arguments.peekable();
    if arguments.next_if(|word| word == "table").is_some() {
        let documents = arguments.next()?.into();
        return arguments.next().is_none().then_some(Task::Table(documents));
    }
    if arguments.next_if(|word| word == "soak").is_some() {
        return soak(arguments).map(Task::Soak);
    }
    measure(arguments).map(Task::Measure)
}

fn soak(mut arguments: impl Iterator<Item = OsString>) -> Option<Soak> {
    let (mut length, mut simulated) = (None, false);
    while let Some(argument) = arguments.next() {
        match argument.to_str()? {
            "--minutes" => length = Some(minutes(&arguments.next()?)?),
            "--simulated" => simulated = true,
            _ => return None,
        }
    }
    Some(Soak {
        length: length?,
        simulated,
    })
}

/// More than none and not for ever.
fn minutes(text: &OsString) -> Option<Duration> {
    let minutes: f64 = text.to_str()?.parse().ok()?;
    (minutes > 0.0 && minutes < 1e6).then(|| Duration::from_secs_f64(60.0 * minutes))
}

fn measure(mut arguments: impl Iterator<Item = OsString>) -> Option<Measure> {
    let mut measure = Measure {
        json: None,
        write: None,
        python: "python3".into(),
        replica: concat!(env!("CARGO_MANIFEST_DIR"), "/bench/replica.py").into(),
        experts: concat!(env!("CARGO_MANIFEST_DIR"), "/bench/experts.py").into(),
        simulated: false,
    };
    while let Some(argument) = arguments.next() {
        match argument.to_str()? {
            "--json" => measure.json = Some(arguments.next()?.into()),
            "--write" => measure.write = Some(arguments.next()?.into()),
            "--python" => measure.python = arguments.next()?.into(),
            "--replica" => measure.replica = arguments.next()?.into(),
            "--experts" => measure.experts = arguments.next()?.into(),
            "--simulated" => measure.simulated = true,
            _ => return None,
        }
    }
    Some(measure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Task> {
        parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn each_task_is_understood() {
        let Some(Task::Measure(measure)) = parsed("--json a.json --python /opt/python3") else {
            panic!("a measurement");
        };
        assert_eq!((measure.json, measure.write), (Some("a.json".into()), None));
        assert!(measure.replica.ends_with("bench/replica.py") && !measure.simulated);
        assert!(measure.experts.ends_with("bench/experts.py"));
        assert_eq!(parsed("table docs"), Some(Task::Table("docs".into())));
        let soak = Soak {
            length: Duration::from_secs(90),
            simulated: false,
        };
        assert_eq!(parsed("soak --minutes 1.5"), Some(Task::Soak(soak)));
    }

    #[test]
    fn nonsense_is_not() {
        for text in [
            "--json",
            "table",
            "table a b",
            "soak",
            "soak --minutes 0",
            "soak --minutes x",
            "now",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
