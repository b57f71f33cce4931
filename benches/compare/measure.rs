//! What the kernel knows of a process: CPU time, memory, and which processes it started.

use std::fs;

/// It and everything that it started.
pub fn family(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut next = 0;
    while let Some(&process) = all.get(next) {
        next += 1;
        for thread in threads(process) {
            let children = fs::read_to_string(format!("/proc/{process}/task/{thread}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    all
}

/// CPU time of the family so far, in nanoseconds, with the kernel's share and the soft interrupts that ran in it.
pub fn cpu(process: u32) -> u64 {
    let of_thread = |process: u32, thread: u32| {
        let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0)
    };
    let of_process = |process| threads(process).into_iter().map(|thread| of_thread(process, thread)).sum::<u64>();
    family(process).into_iter().map(of_process).sum()
}

/// Memory of the family in KiB: pages that are shared count for each by its share.
pub fn memory(process: u32) -> u64 {
    let of_process = |process| {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
    };
    family(process).into_iter().map(of_process).sum()
}

/// How many are running or waiting to run, as averages over 1, 5 and 15 minutes.
pub fn busy() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn threads(process: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}
