//! A shard for tests that only want to see requests arrive.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

/// Listens on a free port of `ip` and answers every request, which has to fit one packet, with `body`. Its threads end with the
/// process.
///
/// # Errors
/// When the address is not this machine's.
pub fn serve(ip: &str, body: &str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0))?;
    let address = listener.local_addr()?;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let answer = answer.clone();
            thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(1..) = stream.read(&mut buffer) {
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}
