//! Box 2, readings from a file instead of hardware: for tests, demonstrations and reports of people.
//!
//! The file holds the samples that `observe --once` prints, one YAML document each. They are shown one per interval, the
//! last one for ever, each stamped with the present time.

use std::collections::VecDeque;
use std::path::Path;

use serde::Deserialize as _;

use super::Sample;

/// Longest file that is read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not readable.
    #[error("could not read the samples of {path}")]
    Read {
        /// File.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Not samples.
    #[error("document {document} of {path} is not a sample; compare it with what `node-agent observe --once` prints")]
    Parse {
        /// File.
        path: String,
        /// Its number, from 1.
        document: usize,
        /// Cause.
        #[source]
        source: serde_yaml::Error,
    },
    /// Nothing in it.
    #[error("{path} holds no sample")]
    Empty {
        /// File.
        path: String,
    },
    /// Too long.
    #[error("{path} is longer than {MAX_BYTES} bytes")]
    TooLong {
        /// File.
        path: String,
    },
}

/// The samples of a file.
#[derive(Debug)]
pub struct Replay {
    left: VecDeque<Sample>,
    current: Sample,
}

impl Replay {
    /// Reads all of the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let read = |source| Error::Read {
            path: name.clone(),
            source,
        };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_BYTES {
            return Err(Error::TooLong { path: name });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let mut left = VecDeque::new();
        for (index, document) in serde_yaml::Deserializer::from_str(&text).enumerate() {
            left.push_back(Sample::deserialize(document).map_err(|source| Error::Parse {
                path: name.clone(),
                document: index + 1,
                source,
            })?);
        }
        let current = left.pop_front().ok_or(Error::Empty { path: name })?;
        Ok(Self { left, current })
    }

    /// The sample to show now. XID errors of a sample are shown once.
    pub fn next_sample(&mut self) -> Sample {
        let shown = self.current.clone();
        match self.left.pop_front() {
            Some(next) => self.current = next,
            None => self.current.xids.clear(),
        }
        restamp(shown)
    }
}

/// As if it were read now.
fn restamp(mut sample: Sample) -> Sample {
    let now = super::now();
    if let Some(gpus) = &mut sample.gpus {
        std::sync::Arc::make_mut(gpus).taken_at = now.clone();
    }
    if let Some(host) = &mut sample.host {
        std::sync::Arc::make_mut(host).taken_at = now.clone();
    }
    if let Some(pods) = &mut sample.pods {
        std::sync::Arc::make_mut(pods).taken_at = now.clone();
    }
    for event in &mut sample.xids {
        event.at = now.clone();
    }
    sample.now = now;
    sample
}
