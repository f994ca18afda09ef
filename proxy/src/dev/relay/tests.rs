use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// Answers every packet with itself; tells the address it came from in front of it.
async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = from.port().to_be_bytes().to_vec();
            answer.extend_from_slice(&buffer[..length]);
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

struct Talker(UdpSocket);

impl Talker {
    async fn to(relay: &Relay) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(relay.address()).await.unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    async fn send(&self, text: &str) {
        self.0.send(text.as_bytes()).await.unwrap();
    }

    /// The port that the target saw, and the text.
    async fn receive(&self) -> (u16, String) {
        let mut buffer = [0; 2048];
        let length = timeout(SOON, self.0.recv(&mut buffer)).await.expect("an answer in time").unwrap();
        (u16::from_be_bytes([buffer[0], buffer[1]]), String::from_utf8(buffer[2..length].to_vec()).unwrap())
    }
}

async fn until(what: impl Fn() -> bool) {
    timeout(SOON, async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the condition in time");
}

#[tokio::test]
async fn every_client_has_its_own_address_and_its_own_answers() {
    let relay = Relay::start(echo().await).await.unwrap();
    let (one, two) = (Talker::to(&relay).await, Talker::to(&relay).await);
    one.send("one").await;
    two.send("two").await;
    let (first, second) = (one.receive().await, two.receive().await);
    assert_eq!((first.1.as_str(), second.1.as_str()), ("one", "two"));
    assert_ne!(first.0, second.0);
    one.send("again").await;
    assert_eq!(one.receive().await, (first.0, "again".into()));
    assert_eq!(relay.counts(), RelayCounts { forwarded: 6, lost_cut: 0, lost_full: 0 });
}

#[tokio::test]
async fn a_cut_loses_everything_and_healing_ends_it() {
    let relay = Relay::start(echo().await).await.unwrap();
    let talker = Talker::to(&relay).await;
    talker.send("before").await;
    assert_eq!(talker.receive().await.1, "before");
    relay.cut();
    talker.send("lost").await;
    until(|| relay.counts().lost_cut == 1).await;
    relay.heal();
    talker.send("after").await;
    assert_eq!(talker.receive().await.1, "after");
}

#[tokio::test]
async fn one_client_can_be_cut_alone() {
    let relay = Relay::start(echo().await).await.unwrap();
    let (cut, whole) = (Talker::to(&relay).await, Talker::to(&relay).await);
    relay.cut_from(cut.address());
    cut.send("lost").await;
    until(|| relay.counts().lost_cut == 1).await;
    whole.send("through").await;
    assert_eq!(whole.receive().await.1, "through");
}

#[tokio::test]
async fn a_cut_loses_what_is_under_way_too() {
    let relay = Relay::start(echo().await).await.unwrap();
    let talker = Talker::to(&relay).await;
    relay.delay(Duration::from_millis(200));
    talker.send("under way").await;
    talker.send("under way too").await;
    // Time for the relay to take both; if it has not, they are lost at its entrance instead.
    tokio::task::yield_now().await;
    relay.cut();
    until(|| relay.counts().lost_cut == 2).await;
    assert_eq!(relay.counts().forwarded, 0);
}

#[tokio::test]
async fn a_delay_is_one_way_and_keeps_the_order() {
    let relay = Relay::start(echo().await).await.unwrap();
    let talker = Talker::to(&relay).await;
    relay.delay(Duration::from_millis(60));
    let started = Instant::now();
    for n in 0..20 {
        talker.send(&n.to_string()).await;
    }
    talker.send("last").await;
    for n in 0..20 {
        assert_eq!(talker.receive().await.1, n.to_string());
    }
    assert!(started.elapsed() >= Duration::from_millis(120), "{:?}", started.elapsed());
    relay.delay(Duration::ZERO);
    talker.send("quick").await;
    assert_eq!(talker.receive().await.1, "last");
    assert_eq!(talker.receive().await.1, "quick");
}

#[tokio::test]
async fn a_full_queue_loses_and_counts() {
    let relay = Relay::start(echo().await).await.unwrap();
    let talker = Talker::to(&relay).await;
    relay.delay(Duration::from_secs(60));
    // One packet is in the hands of the task that waits for its moment.
    let mut sent = 0;
    while relay.counts().lost_full == 0 {
        assert!(sent < 20 * QUEUE_MAX, "the queue of {QUEUE_MAX} never filled");
        talker.send("x").await;
        sent += 1;
        tokio::task::yield_now().await;
    }
    assert!(sent > QUEUE_MAX);
}

#[tokio::test]
async fn a_target_that_is_gone_does_not_end_the_relay() {
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = gone.local_addr().unwrap();
    drop(gone);
    let relay = Relay::start(target).await.unwrap();
    let talker = Talker::to(&relay).await;
    talker.send("nobody").await;
    talker.send("nobody").await;
    until(|| relay.counts().forwarded >= 2).await;
    let socket = UdpSocket::bind(target).await.unwrap();
    talker.send("somebody").await;
    let mut buffer = [0; 64];
    let length = timeout(SOON, socket.recv(&mut buffer)).await.expect("in time").unwrap();
    assert_eq!(&buffer[..length], b"somebody");
}
