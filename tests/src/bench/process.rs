//! Children of the bench: pinned, dead when the bench dies, stopped by their own id.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Where a process runs.
#[derive(Clone, Copy)]
pub struct Cpu(usize);

/// The two CPUs of a run: one for whatever is measured, one for all the rest.
#[derive(Clone, Copy)]
pub struct Cpus {
    /// The subjects'.
    pub subject: Cpu,
    /// Origin, load, second nodes.
    pub rest: Cpu,
}

impl Cpus {
    /// The first two that this process may use.
    pub fn pick() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let list =
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("").trim();
        let mut allowed = list.split(',').flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first
                .parse::<usize>()
                .ok()
                .zip(last.parse::<usize>().ok())
                .map_or(0..0, |(first, last)| first..last + 1)
        });
        match (allowed.next(), allowed.next()) {
            (Some(subject), Some(rest)) => Ok(Self { subject: Cpu(subject), rest: Cpu(rest) }),
            _ => Err(io::Error::other(format!("two CPUs are needed, this process may use {list:?}"))),
        }
    }
}

/// A running child. Dropping it kills it and waits for its end.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` on `cpu`; its standard error (and output, unless it is talked to) goes to `NAME.log` in `folder`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        cpu: Cpu,
        folder: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let mut command = pinned(cpu, program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
        Ok(Self { name: name.to_owned(), child: command.spawn()?, log })
    }

    /// The process id of the program itself: the wrappers have been replaced by it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `address` takes connections.
    pub fn wait_until_listening(&mut self, address: SocketAddr) -> io::Result<()> {
        self.wait_until(&format!("listens on {address}"), || TcpStream::connect(address).is_ok())
    }

    /// Waits until `holds`; an error when the child ends first or does not get there within 20 s.
    pub fn wait_until(&mut self, what: &str, mut holds: impl FnMut() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            let failed = match self.child.try_wait()? {
                Some(status) => format!("ended ({status})"),
                None if Instant::now() > deadline => "is not there after 20 s".to_owned(),
                None => {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
            };
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let (name, log) = (&self.name, last_lines(&log));
            return Err(io::Error::other(format!("{name}: waited until it {what}, but it {failed}\n{log}")));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A running child that obeys lines and answers each with one.
pub struct Obedient {
    name: String,
    child: Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Obedient {
    /// Starts one of the bench's own programs on `cpu` and waits for its first line, `ready`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        cpu: Cpu,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        let mut command = pinned(cpu, program);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other(format!("{name}: no pipes")));
        };
        let (sender, answers) = channel();
        // Ends with the child's output, at the latest when the child is killed on drop.
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        let mut started = Self { name: name.to_owned(), child, input, answers };
        match started.next_line(Duration::from_secs(60))?.as_str() {
            "ready" => Ok(started),
            other => Err(io::Error::other(format!("{name}: expected \"ready\", found {other:?}"))),
        }
    }

    /// Sends one line and returns the answer's, which must come within `within`.
    pub fn ask(&mut self, line: &str, within: Duration) -> io::Result<String> {
        writeln!(self.input, "{line}")?;
        self.next_line(within)
    }

    fn next_line(&mut self, within: Duration) -> io::Result<String> {
        self.answers.recv_timeout(within).map_err(|error| {
            let why = match error {
                RecvTimeoutError::Timeout => "did not answer in time",
                RecvTimeoutError::Disconnected => "ended",
            };
            io::Error::other(format!("{}: {why}", self.name))
        })
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The path of a program built beside the one that runs.
pub fn sibling(name: &str) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => {
            Err(io::Error::other(format!("{} is missing: build all the bench's programs", path.display())))
        }
    }
}

/// Both wrappers replace themselves, so the child's id is the program's; the first makes the kernel kill it with the bench.
fn pinned(cpu: Cpu, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", &cpu.0.to_string()]).arg(program);
    without_overrides(&mut command);
    command
}

/// shardgate takes every `SHARDGATE_` variable for a field of its configuration: neither the bench's own nor a user's may reach it.
pub fn without_overrides(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"SHARDGATE_") {
            command.env_remove(name);
        }
    }
}

fn end(child: &mut Child) {
    // An error here means that it has ended already.
    child.kill().ok();
    child.wait().ok();
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
