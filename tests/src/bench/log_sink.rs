//! Where HAProxy's access log goes: a TCP listener that counts lines and forgets them, as a log shipper beside it would take them.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Takes lines on `address`; answers each line of `input` with the number of lines so far, until `input` ends.
pub fn obey(address: SocketAddr, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let lines = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lines);
    // Ends with the process, when its input does.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let lines = Arc::clone(&counted);
            thread::spawn(move || count_lines(stream, &lines));
        }
    });
    writeln!(output, "ready")?;
    for command in input.lines() {
        command?;
        writeln!(output, "{}", lines.load(Ordering::Relaxed))?;
        output.flush()?;
    }
    Ok(())
}

fn count_lines(mut stream: TcpStream, lines: &AtomicU64) {
    let mut buffer = vec![0; 256 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let ends = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
        lines.fetch_add(ends as u64, Ordering::Relaxed);
    }
}
