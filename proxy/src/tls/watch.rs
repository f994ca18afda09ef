//! Watches the files of `[tls]`: one owned task looks at them at every period, as discovery's watch does.

use super::files::{Fingerprint, Material, Stamps, stamps};
use super::{Generation, Judged, Prepared, ServerTls, TlsErrors};
use shardgate_discovery::FileStamp;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::warn;

/// How the files are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsWatchConfig {
    /// How often they are looked at. A look is one `stat` per file as long as nothing changed.
    pub every: Duration,
    /// How long new content has to stay the same before it is judged: a certificate and its key are two renames.
    pub settle: Duration,
}

impl Default for TlsWatchConfig {
    /// Every second: nobody waits for a certificate. Settled after 100 ms, far above the time between two renames of a script.
    fn default() -> Self {
        Self { every: Duration::from_secs(1), settle: Duration::from_millis(100) }
    }
}

/// The watching task. It ends with [`Self::stop`] or when this is dropped; what is in use then stays.
#[derive(Debug)]
pub struct TlsWatch {
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl TlsWatch {
    /// Ends the task and waits until it has ended.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            warn!(%error, "the watch of the certificates did not end well");
        }
    }
}

impl Drop for TlsWatch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl ServerTls {
    /// Uses what the files hold as soon as they change. Needs a tokio runtime; files are read on its blocking threads.
    pub fn watch(&self, config: TlsWatchConfig) -> TlsWatch {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(Eye::new(self.clone()), config, stopped));
        TlsWatch { stop: Some(stop), task: Some(task) }
    }
}

async fn run(mut eye: Eye, config: TlsWatchConfig, mut stopped: oneshot::Receiver<()>) {
    let mut wait = config.every;
    loop {
        tokio::select! {
            // A dropped sender is the signal as well.
            _ = &mut stopped => return,
            () = tokio::time::sleep(wait) => {}
        }
        let looked = tokio::task::spawn_blocking(move || {
            let sight = eye.look();
            (eye, sight)
        });
        let sight;
        (eye, sight) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                // Only when the runtime ends, or when reading panicked; both end the watch, the certificates stay.
                warn!(%error, "the watch of the certificates has ended");
                return;
            }
        };
        wait = if matches!(sight, Sight::Moving) { config.settle } else { config.every };
        if let Sight::Refused(errors) = sight {
            warn!(%errors, "certificates refused, the last good ones stay in use");
        }
    }
}

/// What a look at the files showed.
#[derive(Debug)]
pub(super) enum Sight {
    /// Nothing happened since the last look.
    Still,
    /// Something is being written; the next look decides.
    Moving,
    /// New material is in use.
    Used,
    /// New material is faulty.
    Refused(TlsErrors),
}

/// What the last look left behind.
pub(super) struct Eye {
    tls: ServerTls,
    /// How the files looked, and what they held; `None` when they have to be read whatever they look like.
    stamps: Option<(Stamps, Fingerprint)>,
    /// What was read once and has to be read once more to be believed.
    pending: Option<Fingerprint>,
}

impl Eye {
    /// The first look reads everything: the files may have changed since they were loaded.
    pub(super) const fn new(tls: ServerTls) -> Self {
        Self { tls, stamps: None, pending: None }
    }

    pub(super) fn look(&mut self) -> Sight {
        let Judged { config, fingerprint: last } = self.tls.judged().clone();
        // The stamps are taken before the content: a write between the two is seen at the next look.
        let stamps = stamps(&config);
        let fresh = stamps.iter().any(|(_, stamp)| stamp.as_ref().is_some_and(FileStamp::is_fresh));
        let ended = self.tls.staples_what_has_ended();
        // What was in these files is what was judged; else a change of `[tls]` has judged what was in them before.
        let known = self.stamps.as_ref() == Some(&(stamps.clone(), last));
        if known && !fresh && !ended && self.pending.is_none() {
            return Sight::Still;
        }
        let material = Material::read(&config);
        // What cannot be read now may be readable later without any sign of it.
        let fingerprint = material.fingerprint();
        self.stamps = material.is_whole().then_some((stamps, fingerprint));
        if fingerprint == last && !ended {
            self.pending = None;
            return Sight::Still;
        }
        if fingerprint != last && self.pending != Some(fingerprint) {
            self.pending = Some(fingerprint);
            return Sight::Moving;
        }
        self.pending = None;
        let generation = Generation::new(material, config.min_version, &self.tls.0.own_tickets);
        let mut judged = self.tls.judged();
        // A change of `[tls]` meanwhile wins; its files are read at the next look.
        if judged.config != config {
            return Sight::Still;
        }
        match generation {
            Ok(generation) => {
                self.tls.switch(judged, Prepared { generation, judged: Judged { config, fingerprint } });
                Sight::Used
            }
            Err(errors) => {
                judged.fingerprint = fingerprint;
                self.tls.count_refused();
                Sight::Refused(errors)
            }
        }
    }
}
