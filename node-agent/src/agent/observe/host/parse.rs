//! Box 2, pure parsers of what the kernel shows as text. Fixtures are recorded from real machines.

/// Longest word that is kept.
const MAX_WORD: usize = 128;

/// The one word of a file such as `osrelease`.
pub fn word(text: &str) -> Option<String> {
    let word = text.split_whitespace().next()?;
    (word.len() <= MAX_WORD).then(|| word.to_owned())
}

/// How many processors a list such as `0-3,8` names.
pub fn cpu_list(text: &str) -> Option<u32> {
    text.trim().split(',').try_fold(0_u32, |sum, part| {
        let count = match part.split_once('-') {
            None => part.parse::<u32>().map(|_| 1).ok()?,
            Some((first, last)) => {
                let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
                last.checked_sub(first)?.checked_add(1)?
            }
        };
        sum.checked_add(count)
    })
}

/// `MemTotal` of `/proc/meminfo` in MiB.
pub fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(kibibytes / 1024)
}

/// Version of the module in `/proc/driver/nvidia/version`, open and closed flavour alike.
pub fn module_version(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("NVRM version:"))?;
    let version = line.split_whitespace().find(|word| is_version(word))?;
    (version.len() <= MAX_WORD).then(|| version.to_owned())
}

fn is_version(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_digit())
        && word.contains('.')
        && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0\n", Some(1))]
    #[case("0-191\n", Some(192))]
    #[case("0-3,8,10-11\n", Some(7))]
    #[case("", None)]
    #[case("3-1", None)]
    #[case("0-4294967295", None)]
    #[case("none", None)]
    fn cpu_lists_are_counted(#[case] text: &str, #[case] expected: Option<u32>) {
        assert_eq!(cpu_list(text), expected);
    }

    #[rstest]
    #[case(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
        Some("550.54.15")
    )]
    #[case(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build  (dvs-builder@U22-I3-AE18-09-6)  Sun Mar 30 06:52:10 UTC 2025\n",
        Some("570.133.20")
    )]
    #[case("GCC version: 12.2.0\n", None)]
    #[case("NVRM version: none\n", None)]
    fn module_versions_are_found_in_both_flavours(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(module_version(text).as_deref(), expected);
    }

    #[test]
    fn memory_is_counted_in_mebibytes() {
        let text = "MemTotal:       2113407844 kB\nMemFree:        1983341076 kB\n";
        assert_eq!(memory_total(text), Some(2_063_874));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert_eq!(memory_total("MemTotal: many kB\n"), None);
    }

    #[test]
    fn words_are_bounded() {
        assert_eq!(word("6.8.0-60-generic\n").as_deref(), Some("6.8.0-60-generic"));
        assert_eq!(word("\n"), None);
        assert_eq!(word(&"x".repeat(1000)), None);
    }
}
