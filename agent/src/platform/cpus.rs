//! How many processors this host may have.

use std::io;

/// Processors that may ever be there, which is what maps with a value for each of them are made for.
pub fn possible() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    count(text.trim()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Counts a list as the kernel writes it: `0-3,8`.
fn count(list: &str) -> Option<usize> {
    let mut sum = 0usize;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        sum = sum.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted() {
        for (list, counted) in [
            ("0", Some(1)),
            ("0-1", Some(2)),
            ("0-3,8-11", Some(8)),
            ("0,2,4", Some(3)),
            ("", None),
            ("3-1", None),
            ("0-", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(count(list), counted, "{list:?}");
        }
        assert!(possible().is_ok_and(|cpus| cpus > 0));
    }
}
