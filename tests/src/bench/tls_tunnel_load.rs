//! WebSocket tunnels over TLS, commanded line by line on the standard input: opened one after another, then idle.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::Instant;

use super::latency::Latencies;
use super::load_report::LoadReport;
use super::net::dial;
use super::tunnel_load::{ANSWER_MAX, Messages, micros};
use super::wire::{Flow, Sessions, Transport, Wire, session};

/// Obeys `open` and `alive` until the input ends; each is answered by one line of JSON, in which `done` counts tunnels.
pub fn obey(target: SocketAddr, count: usize, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let (tls, messages) = (Transport::tls("http/1.1", Sessions::Forgotten)?, Messages::new());
    let mut tunnels = Vec::new();
    writeln!(output, "ready")?;
    for line in input.lines() {
        let (mut report, mut latencies) = (LoadReport::default(), Latencies::default());
        let start = Instant::now();
        match line?.as_str() {
            "open" => {
                for index in 0..count {
                    let began = Instant::now();
                    match open(target, index, &tls, &messages) {
                        Ok(tunnel) => tunnels.push(tunnel),
                        Err(_) => report.errors += 1,
                    }
                    latencies.record(began.elapsed());
                }
                report.done = tunnels.len() as u64;
            }
            "alive" => {
                report.done = tunnels.iter_mut().map(|tunnel| u64::from(is_alive(tunnel))).sum();
                report.errors = tunnels.len() as u64 - report.done;
            }
            other => return Err(io::Error::other(format!("unknown command {other:?}"))),
        }
        report.busy_us = micros(start.elapsed());
        report.write_line(&latencies, &mut output)?;
    }
    Ok(())
}

/// Connects, upgrades and has one message echoed.
fn open(target: SocketAddr, index: usize, tls: &Transport, messages: &Messages) -> io::Result<Wire> {
    let mut stream = dial(target, index)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let Some(mut session) = session(tls)? else { return Err(io::Error::other("not TLS")) };
    messages.open(&mut rustls::Stream::new(&mut *session, &mut stream), index)?;
    Wire::over(stream, Some(session))
}

/// A silent tunnel has nothing to read; one that has was closed or disturbed.
fn is_alive(tunnel: &mut Wire) -> bool {
    let mut received = Vec::new();
    let flow = tunnel.receive(&mut received, &mut [0; 1024]);
    matches!(flow, Ok(Flow::Open)) && received.is_empty()
}
