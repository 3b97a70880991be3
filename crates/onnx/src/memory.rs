//! How much memory there is to be had, as far as the system says.

use std::fs;

/// Bytes that this process may still take without another one, or itself, being ended for it; `None` where nothing says so.
///
/// The least of what the machine has available, what the control group leaves, and what the limit of the address space does.
pub fn available_memory() -> Option<u64> {
    [of_machine(), of_group(), of_process()].into_iter().flatten().min()
}

/// The number behind a word at the start of a line.
fn number(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().find_map(|field| field.parse().ok())
}

fn of_machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let free = number(&text, "MemAvailable:")?.checked_add(number(&text, "SwapFree:").unwrap_or(0))?;
    free.checked_mul(1024)
}

fn of_group() -> Option<u64> {
    let most: u64 = fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?.trim().parse().ok()?;
    let held = fs::read_to_string("/sys/fs/cgroup/memory.stat").ok()?;
    Some(most.saturating_sub(number(&held, "anon ")?))
}

fn of_process() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let most: u64 = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').next()?.parse().ok()?;
    Some(most.saturating_sub(pages.saturating_mul(4096)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn there_is_some_and_not_more_than_there_can_be() {
        let found = available_memory().unwrap();
        assert!((1 << 20..1 << 50).contains(&found), "{found}");
    }

    #[test]
    fn numbers_stand_behind_their_words() {
        let text = "MemTotal:  16 kB\nMemAvailable:    8123 kB\nanon 77\n";
        assert_eq!(number(text, "MemAvailable:"), Some(8123));
        assert_eq!(number(text, "anon "), Some(77));
        assert_eq!(number(text, "SwapFree:"), None);
    }
}
