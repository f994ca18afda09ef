//! Certificates are replaced again and again while clients keep coming: nobody's handshake may fail.
//!
//! `CERTIFICATES_AWAITED=yes` waits for every replacement to be served before the next one; it takes about two minutes.

mod clients;
mod site;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clients::{Clients, Served, visit};
use site::{NAMES, Site};

/// How often everything is replaced.
const REPLACEMENTS: u64 = 100;
/// Time from one replacement to the next: long enough that a node which looks every second sees each as a finished one.
const BETWEEN: Duration = Duration::from_millis(220);
/// Connections for each of the two names, a second.
const RATE_OF_A_NAME: u32 = 250;
/// From the rename of the last file to its certificate at a client.
const SERVED_WITHIN: Duration = Duration::from_secs(3);

#[test]
fn no_handshake_fails_while_all_certificates_are_replaced() {
    let awaited = std::env::var("CERTIFICATES_AWAITED").is_ok_and(|value| !value.is_empty());
    let mut site = Site::start();
    let clients = Clients::start(&site, RATE_OF_A_NAME);
    let began = Instant::now();
    for number in 1..=REPLACEMENTS {
        let replaced = site.replace();
        if awaited {
            site.wait_until_served(replaced, SERVED_WITHIN);
        }
        let due = if awaited { began } else { began + BETWEEN * u32::try_from(number).unwrap() };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let last = site.generation();
    let lag = site.wait_until_served(last, SERVED_WITHIN);
    let took = began.elapsed();
    let visits = clients.stop();

    let failed: Vec<&String> = visits.iter().filter_map(|visit| visit.as_ref().err()).collect();
    let rate = visits.len() as f64 / took.as_secs_f64();
    println!(
        "{} connections in {:.1} s ({rate:.0}/s), {} failed; the last certificates served {} ms after their files",
        visits.len(),
        took.as_secs_f64(),
        failed.len(),
        lag.as_millis()
    );
    let served: Vec<&Served> = visits.iter().filter_map(|visit| visit.as_ref().ok()).collect();
    for (name, kind) in NAMES {
        let generations: BTreeSet<u64> =
            served.iter().filter(|served| served.name == name).map(|served| served.generation).collect();
        println!("{kind}: {} of {} certificates seen", generations.len(), last);
        let wanted = if awaited { last } else { last / 20 };
        assert!(generations.len() as u64 >= wanted, "{kind}: {} seen of {last}", generations.len());
        assert!(generations.contains(&last), "{kind}: the last one was not seen under load");
    }
    assert!(failed.is_empty(), "{} of {} failed, the first: {:?}", failed.len(), visits.len(), failed[0]);
    let wanted = f64::from(2 * RATE_OF_A_NAME);
    assert!(rate >= wanted * 0.9, "{rate:.0} connections a second, {wanted:.0} wanted");
}

#[test]
fn a_client_of_another_authority_is_told_apart() {
    // The proof that clients look: what they trust decides.
    let site = Site::start();
    let stranger = shardgate_tests::certificates::Authority::new().unwrap();
    let error = visit(&site.visitor_that_trusts(stranger.der()), NAMES[0].0).unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    visit(&site.visitor(), NAMES[0].0).unwrap();
}
