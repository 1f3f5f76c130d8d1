//! What `ptxas -v` says about every kernel.

use std::path::Path;

/// Registers, shared memory and stack of a kernel on one architecture.
#[derive(Debug, Default)]
pub struct Resources {
    /// Its name.
    pub kernel: String,
    /// "sm_90a".
    pub arch: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of static shared memory.
    pub shared: u32,
    /// Bytes of a thread's stack frame.
    pub stack: u32,
    /// Bytes of spilled registers, stores and loads.
    pub spills: u32,
}

/// All kernels of a log, in its order.
pub fn parse(log: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let mut quoted = rest.split('\'');
            let (kernel, arch) = (quoted.next().unwrap_or_default(), quoted.nth(1).unwrap_or_default());
            found.push(Resources { kernel: kernel.to_owned(), arch: arch.to_owned(), ..Resources::default() });
        }
        let Some(last) = found.last_mut() else { continue };
        // "8 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads"; "Used 32 registers, .., 64 bytes smem"
        for part in line.split([',', ':']) {
            let words: Vec<&str> = part.split_whitespace().collect();
            match words[..] {
                [bytes, "bytes", "stack", "frame"] => last.stack = number(bytes),
                [bytes, "bytes", "spill", _] => last.spills += number(bytes),
                [bytes, "bytes", "smem"] => last.shared = number(bytes),
                ["Used", registers, "registers"] => last.registers = number(registers),
                _ => {}
            }
        }
    }
    found
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or(0)
}

/// One line for every kernel that uses local memory without the leave of its file.
pub fn faults(source: &Path, log: &str) -> Vec<String> {
    let text = std::fs::read_to_string(source).unwrap_or_default();
    let allowed: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("// allow-stack: ")?.split_whitespace().next())
        .collect();
    let faulty = parse(log).into_iter().filter(|r| r.stack + r.spills > 0 && !allowed.contains(&r.kernel.as_str()));
    let message = |r: Resources| {
        let Resources { kernel, arch, stack, spills, .. } = r;
        format!("{}: {kernel} for {arch}: stack frame {stack} bytes, spills {spills} bytes", source.display())
    };
    faulty.map(message).collect()
}
