use super::super::Phase;
use super::super::agent;
use super::super::target::Plan;
use super::super::{Sessions, Standing};
use super::*;
use crate::config::{AgentCheck, Check, HealthConfig, OnMarkedDown, SendProxy};
use shardgate_discovery::ShardState;
use std::sync::Arc;

const S: At = 1_000;

fn name(text: &str) -> ShardName {
    ShardName::parse(text).unwrap()
}

fn config() -> HealthConfig {
    let second = Duration::from_secs(1);
    HealthConfig {
        check: Check::Http,
        inter: 10 * second,
        fastinter: 2 * second,
        downinter: 5 * second,
        fall: 2,
        rise: 3,
        ..HealthConfig::default()
    }
}

fn targets(config: &HealthConfig, names: &[&str]) -> BTreeMap<ShardName, Target> {
    let plan = Arc::new(Plan { config: config.clone(), tls: None, send_proxy: SendProxy::Off });
    let target = |text: &&str| {
        let agent = (config.agent_check == AgentCheck::On).then(|| "127.0.0.1:6060".parse().unwrap());
        let address = "127.0.0.1:80".parse().unwrap();
        (name(text), Target { address, agent, wanted: ShardState::Ready, plan: Arc::clone(&plan) })
    };
    names.iter().map(target).collect()
}

fn checks(config: &HealthConfig) -> Checks {
    let mut checks = Checks::new(7);
    checks.list(0, targets(config, &["s1"]));
    checks
}

fn result(passed: Passed) -> Checked {
    Checked { passed, came: Came::ToAnswer, what: "status 500".to_owned(), took: Duration::from_millis(100) }
}

/// Runs the next question that is due and answers when it was due.
fn next(checks: &mut Checks, passed: Passed) -> At {
    let at = checks.next().unwrap();
    let question = checks.poll(at).unwrap();
    checks.checked(at + 100, &question, result(passed));
    at
}

fn hear(checks: &mut Checks, line: &str) -> At {
    let at = checks.next().unwrap();
    let question = checks.poll(at).unwrap();
    assert_eq!(question.kind, Kind::Agent);
    let answer = agent::read(line.as_bytes()).map_err(|error| error.to_string());
    checks.heard(at, &question, answer);
    at
}

fn standing(checks: &Checks, now: At) -> Standing {
    checks.health(now).of(&name("s1"))
}

#[test]
fn pauses_follow_the_phase() {
    use Passed::{No, Yes};
    let mut checks = checks(&config());
    let first = next(&mut checks, Yes);
    assert!(first < 10 * S, "somewhere within the first pause");
    let mut at = first;
    for (passed, pause_before, reach) in [
        (No, 10, Reach::Up),
        (No, 2, Reach::Down),
        (No, 5, Reach::Down),
        (Yes, 5, Reach::Down),
        (Yes, 2, Reach::Down),
        (Yes, 2, Reach::Up),
        (Yes, 10, Reach::Up),
    ] {
        let next = next(&mut checks, passed);
        assert_eq!(next - at, pause_before * S);
        at = next;
        assert_eq!(standing(&checks, at).reach, reach);
    }
    let news = checks.take_news();
    let told = |news: &News| matches!(news, News::Down { .. } | News::Up { .. });
    assert!(news.len() == 2 && news.iter().all(told), "{news:?}");
    let report = &checks.report(at)[0];
    assert_eq!((report.downs, report.check.as_ref().unwrap().phase), (1, Phase::Up));
    assert!(checks.take_news().is_empty());
}

#[test]
fn checks_of_many_are_spread_and_differ_by_node() {
    let names: Vec<String> = (0..500).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let first = |seed| {
        let mut checks = Checks::new(seed);
        checks.list(0, targets(&config(), &names));
        let mut times = BTreeMap::new();
        while let Some(question) = checks.next().and_then(|at| checks.poll(at)) {
            times.insert(question.name.clone(), checks.next());
        }
        (0..10)
            .map(|second| times.values().flatten().filter(|at| **at / S == second).count())
            .collect::<Vec<_>>()
    };
    let (one, other) = (first(1), first(2));
    assert!(one.iter().all(|count| (25..=80).contains(count)), "{one:?}");
    assert_ne!(one, other);
}

#[test]
fn an_answer_about_a_server_that_has_gone_is_void() {
    let mut checks = checks(&config());
    let at = checks.next().unwrap();
    let question = checks.poll(at).unwrap();
    assert!(checks.poll(at + 100 * S).is_none(), "one question at a time");
    checks.list(at, BTreeMap::new());
    checks.list(at, targets(&config(), &["s1"]));
    checks.checked(at + 100, &question, result(Passed::No));
    assert_eq!(standing(&checks, at).reach, Reach::Up);
    assert_eq!(checks.report(at)[0].check.as_ref().unwrap().failed, 0);
    checks.list(at, targets(&HealthConfig { check: Check::Off, ..config() }, &["s1"]));
    assert_eq!(checks.next(), None, "without a check nothing is asked");
}

#[test]
fn agents_are_believed() {
    let agent = HealthConfig { check: Check::Off, agent_check: AgentCheck::On, ..config() };
    let mut checks = checks(&agent);
    let whole = Standing::default();
    for (line, state, weight) in [
        ("up ready 100%\n", Some(ShardState::Ready), 256),
        ("up drain 0%\n", Some(ShardState::Drain), 0),
        ("50%\n", Some(ShardState::Drain), 128),
        ("no line", Some(ShardState::Drain), 128),
        ("ready\n", Some(ShardState::Ready), 128),
        ("down # no disk\n", Some(ShardState::Maint), 128),
        ("gibberish\n", Some(ShardState::Maint), 128),
        ("up 100%\n", Some(ShardState::Ready), 256),
        ("fail\n", Some(ShardState::Maint), 256),
        ("UP\n", Some(ShardState::Ready), 256),
        ("maint\n", Some(ShardState::Maint), 256),
    ] {
        let at = hear(&mut checks, line);
        let Standing { state: said, share, reach, sessions, connections_max } = standing(&checks, at);
        assert_eq!((said, share.of_weight(256)), (state, weight), "{line:?}");
        assert_eq!((reach, sessions, connections_max), (whole.reach, whole.sessions, None));
    }
    let report = checks.report(0)[0].agent.clone().unwrap();
    assert_eq!((report.says.as_str(), report.error), ("up maint 100%", None));
    let silent = checks.take_news().into_iter().filter(|news| matches!(news, News::AgentSilent { .. }));
    assert_eq!(silent.count(), 1);
}

#[test]
fn an_agent_that_is_up_again_needs_no_checks_to_prove_it() {
    let both = HealthConfig {
        agent_check: AgentCheck::On,
        agent_inter: Duration::from_secs(1_000),
        on_marked_down: OnMarkedDown::ShutdownSessions,
        ..config()
    };
    let mut checks = checks(&both);
    let ask = |checks: &mut Checks, kind: Kind| loop {
        let at = checks.next().unwrap();
        let question = checks.poll(at).unwrap();
        if question.kind == kind {
            return (at, question);
        }
        checks.checked(at, &question, result(Passed::No));
    };
    let said = |line: &str| Ok(agent::read(line.as_bytes()).unwrap());
    let (at, question) = ask(&mut checks, Kind::Agent);
    checks.heard(at, &question, said("down\n"));
    assert_eq!(standing(&checks, at).sessions, Sessions::Ended);
    let (at, question) = ask(&mut checks, Kind::Agent);
    assert_eq!(standing(&checks, at).reach, Reach::Down);
    checks.heard(at, &question, said("up\n"));
    assert_eq!(standing(&checks, at), Standing::default());
    // But who never said that it is down says nothing new by saying that it is up: the strictest holds.
    let (at, question) = ask(&mut checks, Kind::Agent);
    assert_eq!(standing(&checks, at).reach, Reach::Down);
    checks.heard(at, &question, said("up\n"));
    assert_eq!(standing(&checks, at).reach, Reach::Down);
}

#[test]
fn requests_that_fail_count_as_configured() {
    for (on_error, reach) in [
        (OnError::Fastinter, Reach::Up),
        (OnError::FailCheck, Reach::Up),
        (OnError::SuddenDeath, Reach::Up),
        (OnError::MarkDown, Reach::Down),
    ] {
        let mut checks = checks(&HealthConfig { on_error, ..config() });
        let at = next(&mut checks, Passed::Yes);
        checks.observed(at + 200, &name("s1"));
        checks.observed(at + 200, &name("unknown"));
        assert_eq!(standing(&checks, at).reach, reach, "{on_error:?}");
        assert_eq!(checks.next(), Some(at + 200 + 2 * S), "{on_error:?}");
        next(&mut checks, Passed::No);
        let dies = if on_error == OnError::Fastinter { Reach::Up } else { Reach::Down };
        assert_eq!(standing(&checks, at).reach, dies, "{on_error:?}");
    }
}

#[test]
fn who_begins_to_take_requests_ramps_up() {
    let slow =
        HealthConfig { slowstart: Duration::from_secs(60), slowstart_steps: 3, fall: 1, rise: 1, ..config() };
    let mut checks = checks(&slow);
    let weight = |checks: &Checks, now: At| standing(checks, now).share.of_weight(4);
    let at = next(&mut checks, Passed::Yes);
    assert_eq!(weight(&checks, at), 4, "at the start of the node nobody ramps");
    next(&mut checks, Passed::No);
    let up = next(&mut checks, Passed::Yes) + 100;
    for (since, share) in [(0, 1), (19, 1), (20, 2), (40, 3), (60, 4)] {
        assert_eq!(weight(&checks, up + since * S), share, "{since}");
    }
    let mut ramps = 0;
    while let Some(at) = checks.due.iter().find(|(_, _, kind)| *kind == Kind::Ramp).map(|(at, _, _)| *at) {
        ramps += 1;
        assert_eq!(at, up + ramps * 20 * S);
        while let Some(question) = checks.poll(at) {
            checks.checked(at, &question, result(Passed::Yes));
        }
    }
    assert_eq!(ramps, 3);
    // One that is listed later ramps as well, and one that operators set ready.
    let later = up + 1_000 * S;
    let mut drained = targets(&slow, &["s1", "s2"]);
    drained.get_mut(&name("s1")).unwrap().wanted = ShardState::Drain;
    checks.list(later, drained);
    assert_eq!(checks.health(later).of(&name("s2")).share.of_weight(4), 1);
    checks.list(later + S, targets(&slow, &["s1", "s2"]));
    assert_eq!(weight(&checks, later + S), 1);
}

#[test]
fn a_probe_does_not_overrule_checks() {
    use Came::{Nowhere, ToAnswer, ToConnection};
    use Passed::{No, Yes};
    let millis = Duration::from_millis;
    let probe = |passed, came| Checked { passed, came, what: String::new(), took: millis(400) };
    let last = |took| Checked { took: millis(took), ..result(Yes) };
    for (check, usual_ms, failed_before, passed, came, reached) in [
        (Check::Http, 2, 0, Yes, ToAnswer, true),
        (Check::Http, 2, 0, No, Nowhere, false),
        // One bad answer of two that make it down.
        (Check::Http, 2, 1, No, ToAnswer, true),
        (Check::Http, 2, 2, No, ToAnswer, false),
        // Stopped by SIGSTOP, and far away.
        (Check::Http, 2, 0, No, ToConnection, false),
        (Check::Http, 390, 0, No, ToConnection, true),
        (Check::Http, 390, 2, No, ToConnection, false),
        (Check::Off, 0, 0, Yes, ToAnswer, true),
        (Check::Off, 0, 0, No, Nowhere, false),
    ] {
        let mut checks = checks(&HealthConfig { check, ..config() });
        if check != Check::Off {
            let at = checks.next().unwrap();
            let question = checks.poll(at).unwrap();
            checks.checked(at, &question, last(usual_ms));
            for _ in 0..failed_before {
                next(&mut checks, No);
            }
        }
        let what = format!("{check:?} {usual_ms} {failed_before} {passed:?} {came:?}");
        assert_eq!(checks.is_reached(&name("s1"), &probe(passed, came)), reached, "{what}");
        assert!(!checks.is_reached(&name("unknown"), &probe(Yes, came)), "{what}");
    }
}

/// Answers the question about a way that is due next.
fn way(checks: &mut Checks, passed: Passed, came: Came) -> At {
    let (at, question) = loop {
        let at = checks.next().unwrap();
        let question = checks.poll(at).unwrap();
        if question.kind == Kind::Way {
            break (at, question);
        }
        checks.checked(at, &question, Checked { came, ..result(passed) });
    };
    checks.way(at, &question, &Checked { came, ..result(passed) });
    at
}

#[test]
fn a_way_is_cut_until_the_server_is_reached() {
    let without = HealthConfig { check: Check::Off, ..config() };
    let mut checks = checks(&without);
    checks.cut(100, &name("s1"));
    checks.cut(200, &name("s1"));
    assert!(checks.take_changed());
    assert_eq!((standing(&checks, 200).reach, standing(&checks, 200).sessions), (Reach::Cut, Sessions::Kept));
    assert_eq!(way(&mut checks, Passed::No, Came::Nowhere), 100 + S);
    assert_eq!(checks.report(5 * S)[0].cut, Some(Duration::from_millis(4_900)));
    assert_eq!(way(&mut checks, Passed::Yes, Came::ToAnswer), 100 + 2 * S);
    assert_eq!(
        (standing(&checks, 5 * S).reach, checks.report(5 * S)[0].cut, checks.next()),
        (Reach::Up, None, None)
    );
    let news = checks.take_news();
    let told = |wanted: fn(&News) -> bool| news.iter().filter(|news| wanted(news)).count();
    assert_eq!(told(|news| matches!(news, News::Cut { .. })), 1);
    assert_eq!(told(|news| matches!(news, News::Reached { .. })), 1);
}

#[test]
fn one_that_is_reached_and_unwell_is_its_checks_affair() {
    for came in [Came::ToConnection, Came::ToAnswer] {
        let often = Duration::from_millis(100);
        let mut checks =
            checks(&HealthConfig { inter: often, fastinter: often, downinter: often, ..config() });
        checks.cut(0, &name("s1"));
        // As long as a home says that others find it well, it is the way all the same.
        while way(&mut checks, Passed::No, came) < 8 * S {}
        assert_eq!(standing(&checks, 8 * S).reach, Reach::Cut, "{came:?}");
        checks.cut(8 * S, &name("s1"));
        while way(&mut checks, Passed::No, came) < 19 * S {}
        assert_eq!(checks.report(19 * S)[0].cut, Some(Duration::from_secs(19)), "{came:?}");
        way(&mut checks, Passed::No, came);
        let report = &checks.report(20 * S)[0];
        assert_eq!((report.cut, report.standing.reach), (None, Reach::Down), "{came:?}");
        assert_eq!(report.check.as_ref().unwrap().phase, Phase::Down, "{came:?}");
    }
    // One that nobody confirms any more may be dead, which is told.
    let mut checks = checks(&HealthConfig { check: Check::Off, ..config() });
    checks.cut(0, &name("s1"));
    while way(&mut checks, Passed::No, Came::Nowhere) < 11 * S {}
    checks.take_changed();
    assert_eq!(way(&mut checks, Passed::No, Came::Nowhere), 12 * S);
    assert!(checks.take_changed());
    assert_eq!(standing(&checks, 12 * S).reach, Reach::Down);
    checks.cut(13 * S, &name("s1"));
    assert!(checks.take_changed());
    assert_eq!(standing(&checks, 13 * S).reach, Reach::Cut);
}

/// What was held against it before was the way.
#[test]
fn one_that_is_reached_and_well_is_up_at_once() {
    let mut checks = checks(&config());
    checks.cut(0, &name("s1"));
    way(&mut checks, Passed::No, Came::Nowhere);
    for _ in 0..20 {
        way(&mut checks, Passed::No, Came::Nowhere);
    }
    assert_eq!(checks.report(S)[0].check.as_ref().unwrap().phase, Phase::Down);
    way(&mut checks, Passed::Yes, Came::ToAnswer);
    assert_eq!(standing(&checks, 60 * S).reach, Reach::Up);
}

/// Direct tunnels to a server whose way is cut end when its checks call it down, though it was down before.
#[test]
fn what_checks_find_while_a_way_is_cut_is_told() {
    let ends = HealthConfig { on_marked_down: OnMarkedDown::ShutdownSessions, ..config() };
    let mut checks = checks(&ends);
    checks.cut(0, &name("s1"));
    assert!(checks.take_changed());
    while standing(&checks, S).sessions == Sessions::Kept {
        assert!(!checks.take_changed());
        way(&mut checks, Passed::No, Came::Nowhere);
    }
    assert!(checks.take_changed());
}

#[test]
fn an_agent_sets_how_much_its_server_gets_at_once() {
    let agent = HealthConfig { check: Check::Off, agent_check: AgentCheck::On, ..config() };
    let mut checks = checks(&agent);
    for (line, most, told) in [
        ("maxconn:20\n", Some(20), true),
        ("up\n", Some(20), true),
        ("maxconn:many\n", Some(20), false),
        ("up 50% maxconn:0\n", Some(0), true),
    ] {
        checks.take_news();
        let at = hear(&mut checks, line);
        assert_eq!(checks.health(at).connections_max().get(&name("s1")).copied(), most, "{line:?}");
        let news = checks.take_news();
        assert_eq!(news.iter().any(|news| matches!(news, News::Agent { .. })), told, "{line:?}");
    }
    assert_eq!(checks.report(0)[0].agent.as_ref().unwrap().says, "up 50% maxconn:0");
    checks.list(0, targets(&HealthConfig { agent_check: AgentCheck::Off, ..agent }, &["s1"]));
    assert!(checks.health(0).connections_max().is_empty(), "who is not asked any more has said nothing");
}
