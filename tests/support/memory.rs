//! What a process takes of the machine, as /proc tells it.

use std::fs;

/// The memory that it has in use, in bytes.
pub fn memory(id: u32) -> usize {
    status(id, "VmRSS:")
}

/// The most memory that it has ever had in use, in bytes.
pub fn most_memory(id: u32) -> usize {
    status(id, "VmHWM:")
}

fn status(id: u32, of: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(of));
    let kilobytes = value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kilobytes.expect("Linux says it of a running process") * 1024
}

/// How many descriptors it has open.
pub fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

/// How much processor time it has had, in hundredths of a second.
pub fn processor_time(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, so count from its end.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let number = |at: usize| rest.split(' ').nth(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    number(11) + number(12)
}
