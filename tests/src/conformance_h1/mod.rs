//! HTTP/1 as raw bytes against a running shardgate, with Debian's nginx and Node's http server as its shards. Each case has a name
//! with the section of RFC 9110 or 9112 that it is about, or with the class of request smuggling; it says what is sent, what must be
//! answered, and what must have arrived at the shard: a smuggled request never does.
//!
//! Everything listens in 127.86.0.0/16, so one run at a time.

mod case;
mod cases;
mod client;
mod play;
mod run;
mod site;
mod upstream;

pub use run::{Options, Report, run};
