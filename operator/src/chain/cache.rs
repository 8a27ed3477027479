//! What each reader knows, on disk: it starts from here, with or without the API server.

use std::io;
use std::path::{Path, PathBuf};

use crds::sprint_schedule::SprintScheduleSpec;
use serde::{Deserialize, Serialize};
use tokio::fs;

use super::decide::Memory;

/// Largest file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// One schedule.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cached {
    /// Name of the SprintSchedule.
    pub(super) name: String,
    /// Its last valid spec.
    pub(super) spec: SprintScheduleSpec,
    /// What was believed.
    #[serde(default)]
    pub(super) memory: Memory,
}

/// Folder of the cache.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// In `<cache_dir>/schedules`.
    pub(super) fn new(cache_dir: &Path) -> Self {
        Self {
            folder: cache_dir.join("schedules"),
        }
    }

    /// Object names hold no slash and are no longer than 253 letters; anything else is not cached.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        let is_name = !name.is_empty() && name.len() <= 253 && !name.starts_with('.') && name.bytes().all(plain);
        is_name.then(|| self.folder.join(format!("{name}.json")))
    }

    /// Every schedule that can be read.
    pub(super) async fn load(&self) -> Vec<Cached> {
        let mut found = Vec::new();
        let Ok(mut entries) = fs::read_dir(&self.folder).await else {
            return found;
        };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path).await {
                Ok(cached) => found.push(cached),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    path = %path.display(),
                    "a cached schedule cannot be read, the API server's word is awaited"
                ),
            }
        }
        found
    }

    /// Writes one schedule: whole or not at all.
    pub(super) async fn store(&self, cached: &Cached) -> io::Result<()> {
        let Some(path) = self.file(&cached.name) else {
            return Ok(());
        };
        fs::create_dir_all(&self.folder).await?;
        let temporary = path.with_extension("json.new");
        fs::write(&temporary, serde_json::to_vec(cached)?).await?;
        fs::rename(&temporary, &path).await
    }

    /// Forgets one schedule.
    pub(super) async fn remove(&self, name: &str) {
        if let Some(path) = self.file(name)
            && let Err(error) = fs::remove_file(&path).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                schedule = name,
                "cache file was not removed"
            );
        }
    }
}

async fn read(path: &Path) -> io::Result<Cached> {
    if fs::metadata(path).await?.len() > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "larger than a schedule can be",
        ));
    }
    Ok(serde_json::from_slice(&fs::read(path).await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(name: &str) -> Cached {
        Cached {
            name: name.to_owned(),
            spec: SprintScheduleSpec {
                chain_id: "gonka-mainnet".to_owned(),
                ..SprintScheduleSpec::default()
            },
            memory: Memory::default(),
        }
    }

    #[tokio::test]
    async fn what_is_stored_is_loaded_and_broken_files_are_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path());
        assert!(cache.load().await.is_empty());
        cache.store(&cached("mainnet")).await.expect("stored");
        cache.store(&cached("../outside")).await.expect("passed over");
        fs::write(folder.path().join("schedules/broken.json"), b"{")
            .await
            .expect("written");
        assert_eq!(cache.load().await, [cached("mainnet")]);
        assert!(!folder.path().join("outside.json").exists());
        cache.remove("mainnet").await;
        assert!(cache.load().await.is_empty());
    }
}
