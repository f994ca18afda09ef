//! Plays one case: sends, reads, and asks the shard what has arrived.

use super::case::{After, Answer, Case, GivenUp, Method, Seen, Step, TAG};
use super::client::{Client, Read1};
use super::site::Site;
use super::upstream::Arrived;

/// Plays `case` under the word `tag`; what is wrong, or nothing.
pub(super) fn play(case: &Case, site: &Site, tag: &str) -> Result<(), String> {
    let answered = exchange(case, site, tag);
    // Also when the exchange failed: a request that was smuggled is the worse news.
    let arrived = arrival(case, site, tag);
    arrived.and(answered)
}

fn exchange(case: &Case, site: &Site, tag: &str) -> Result<(), String> {
    let mut client = Client::connect(site.frontend()).map_err(|error| format!("cannot connect: {error}"))?;
    let mut interims = Vec::new();
    let mut answers = case.answers.iter();
    for step in &case.steps {
        match step {
            Step::Send(bytes) => client.send(&tagged(bytes, tag)),
            Step::Finish => client.finish(),
            Step::Interim(status) => {
                let answer = client.read(Method::Other)?;
                if answer.status != *status {
                    return Err(format!("{} instead of the interim answer {status}", answer.status));
                }
                interims.push(answer.status);
            }
            Step::Answer => {
                let expected = answers.next().ok_or("more answers are waited for than expected")?;
                next_answer(&mut client, expected, &mut interims)?;
            }
            Step::Echo(bytes) => client.echo(bytes)?,
        }
    }
    for expected in answers {
        next_answer(&mut client, expected, &mut interims)?;
    }
    if interims != case.interims {
        return Err(format!("interim answers {interims:?}, expected {:?}", case.interims));
    }
    match case.after {
        After::Tunnel => Ok(()),
        After::Closed => match client.rest()? {
            rest if rest.is_empty() => Ok(()),
            rest => Err(format!("behind the last answer comes {:?}", String::from_utf8_lossy(&rest))),
        },
        After::Open => follow(&mut client, &format!("/{tag}/after")),
    }
}

/// One more request on the same connection gets its own answer.
fn follow(client: &mut Client, target: &str) -> Result<(), String> {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n").as_bytes());
    let answer = client.read(Method::Other).map_err(|error| format!("the next request: {error}"))?;
    match (answer.status, answer.get("x-saw")) {
        (200, Some(saw)) if saw == target => Ok(()),
        (status, saw) => Err(format!("the next request, {target}, got {status} for {saw:?}")),
    }
}

fn next_answer(client: &mut Client, expected: &Answer, interims: &mut Vec<u16>) -> Result<(), String> {
    let answer = loop {
        let answer = client.read(expected.method)?;
        if answer.status >= 200 || answer.status == 101 {
            break answer;
        }
        interims.push(answer.status);
    };
    check(&answer, expected)
}

fn check(answer: &Read1, expected: &Answer) -> Result<(), String> {
    if answer.status != expected.status {
        return Err(format!("answered {}, expected {}", answer.status, expected.status));
    }
    for (name, value) in &expected.lines {
        if !answer.lines.iter().any(|(other, said)| other.eq_ignore_ascii_case(name) && said == value) {
            return Err(format!("no line {name}: {value} in the answer: {:?}", answer.lines));
        }
    }
    if let Some(name) = expected.absent.iter().find(|name| answer.get(name).is_some()) {
        return Err(format!("a line {name} in the answer"));
    }
    if let Some(body) = expected.body.filter(|body| answer.body != *body) {
        let (got, body) = (String::from_utf8_lossy(&answer.body), String::from_utf8_lossy(body));
        return Err(format!("body {got:?}, expected {body:?}"));
    }
    for (name, value) in &expected.trailers {
        if !answer.trailers.iter().any(|(other, said)| other.eq_ignore_ascii_case(name) && said == value) {
            return Err(format!("no trailer {name}: {value}: {:?}", answer.trailers));
        }
    }
    Ok(())
}

fn tagged(bytes: &[u8], tag: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, others)) = rest.split_first() {
        match rest.strip_prefix(TAG.as_bytes()) {
            Some(behind) => {
                out.extend_from_slice(tag.as_bytes());
                rest = behind;
            }
            None => {
                out.push(*first);
                rest = others;
            }
        }
    }
    out
}

/// What has arrived is what must have, and nothing of it waits at the shard for somebody else's request.
fn arrival(case: &Case, site: &Site, tag: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let fence = format!("/{tag}/fence");
    let mut client = Client::connect(site.frontend()).map_err(failed)?;
    follow(&mut client, &fence).map_err(|error| format!("somebody else is hit: {error}"))?;
    let is_here = |arrived: &[Arrived]| {
        arrived.iter().any(|request| request.target == fence)
            && arrived.iter().filter(|request| !is_ours(request, tag)).count() >= case.seen.len()
    };
    let arrived = site.upstream.wait(tag, is_here).map_err(failed)?;
    let arrived: Vec<&Arrived> = arrived.iter().filter(|request| !is_ours(request, tag)).collect();
    let given_up = |request: &&&Arrived| case.given_up == GivenUp::Incomplete && !request.complete;
    let whole: Vec<&&Arrived> = arrived.iter().filter(|request| !given_up(request)).collect();
    if whole.len() != case.seen.len() {
        let said: Vec<String> = whole
            .iter()
            .map(|request| format!("{} {} ({})", request.method, request.target, request.status))
            .collect();
        return Err(format!("{} requests arrived, expected {}: {said:?}", whole.len(), case.seen.len()));
    }
    whole.iter().zip(&case.seen).try_for_each(|(arrived, expected)| check_arrived(arrived, expected, tag))
}

/// The requests that the play itself sends.
fn is_ours(request: &Arrived, tag: &str) -> bool {
    request.target == format!("/{tag}/fence") || request.target == format!("/{tag}/after")
}

fn check_arrived(arrived: &Arrived, expected: &Seen, tag: &str) -> Result<(), String> {
    let target = expected.target.replace(TAG, tag);
    if (arrived.method.as_str(), arrived.target.as_str()) != (expected.method, target.as_str()) {
        return Err(format!(
            "arrived: {} {}, expected {} {target}",
            arrived.method, arrived.target, expected.method
        ));
    }
    if !arrived.complete || arrived.status == 400 {
        return Err(format!("the shard takes {target} for no valid request: {arrived:?}"));
    }
    let body = tagged(expected.body, tag);
    if arrived.body != body {
        let (got, body) = (String::from_utf8_lossy(&arrived.body), String::from_utf8_lossy(&body));
        return Err(format!("arrived with the body {got:?}, expected {body:?}"));
    }
    for (name, value) in &expected.lines {
        if !arrived.fields.iter().any(|(other, said)| other == name && said == value) {
            return Err(format!("arrived without {name}: {value}: {:?}", arrived.fields));
        }
    }
    if let Some(name) =
        expected.absent.iter().find(|name| arrived.fields.iter().any(|(other, _)| other == **name))
    {
        return Err(format!("arrived with a line {name}"));
    }
    let trailers = arrived.trailers.as_deref();
    for (name, value) in &expected.trailers {
        let is_there =
            |list: &[(String, String)]| list.iter().any(|(other, said)| other == name && said == value);
        if trailers.is_some_and(|list| !is_there(list)) {
            return Err(format!("arrived without the trailer {name}: {value}: {trailers:?}"));
        }
    }
    Ok(())
}
