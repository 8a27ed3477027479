//! Apply: reports as files, and the tables of the document that are made of them.

use crate::{Failure, args::Measure};
use kernels::cuda::bench::{
    Report,
    table::{column, renew as renewed, tables},
};
use std::{fs, path::Path};

/// Writes what was measured where it was asked for; what a person reads of it.
pub(crate) fn publish(wanted: &Measure, report: &Report) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    if let Some(file) = &wanted.json {
        fs::write(file, &json).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    }
    if report.simulated {
        if wanted.write.is_some() {
            return Err("what the simulated driver took is written into no document".into());
        }
        return Ok("\"simulated\": true, so no table".into());
    }
    let Some(documents) = &wanted.write else {
        return Ok(tables(std::slice::from_ref(report)));
    };
    let column = column(report).ok_or_else(|| format!("the document has no column for {}", report.device))?;
    let folder = documents.join("benchmarks");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{}.json", column.to_lowercase())), &json)?;
    renew(documents)
}

/// Makes the tables of `benchmarks.md` anew; the document.
pub(crate) fn renew(documents: &Path) -> Result<String, Failure> {
    let file = documents.join("benchmarks.md");
    let text = fs::read_to_string(&file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let fresh = renewed(&text, &reports(&documents.join("benchmarks"))?)
        .ok_or_else(|| format!("{} has no place for tables", file.display()))?;
    if fresh != text {
        fs::write(&file, &fresh)?;
    }
    Ok(fresh)
}

/// All reports of a folder; none where there is no folder.
fn reports(folder: &Path) -> Result<Vec<Report>, Failure> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &Path| -> Result<Report, Failure> {
        serde_json::from_slice(&fs::read(path)?).map_err(|error| format!("{}: {error}", path.display()).into())
    };
    paths.iter().map(|path| read(path)).collect()
}
