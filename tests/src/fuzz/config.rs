//! The daemon's configuration with what is laid over it: one that is printed and read back equal, or faults, a line each.

use std::fs;

use shardgate_proxy::config::{Config, ConfigErrors, DiscoveryConfig, load};
use shardgate_proxy::log_writer::LogTarget;

thread_local! {
    static FOLDER: Folder = Folder::new();
}

/// What a configuration may name stands beside it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for configurations");
        fs::create_dir(folder.path().join("pages")).expect("a folder for pages");
        for (name, text) in [
            ("ca.pem", "pem"),
            ("cert.pem", "pem"),
            ("key.pem", "pem"),
            ("discovery.toml", ""),
            ("pages/503.html", "<h1>sorry</h1>"),
        ] {
            fs::write(folder.path().join(name), text).expect("a file to be named");
        }
        Self(folder)
    }

    fn load(&self, text: &[u8], env: &[(String, String)], sets: &[String]) -> Result<Config, ConfigErrors> {
        let path = self.0.path().join("shardgate.toml");
        fs::write(&path, text).expect("the configuration is written");
        load(&path, env.iter().cloned(), sets)
    }
}

/// The file's bytes up to the first 0; after it, each up to the next 0, variables (`SHARDGATE_…=value`) and values of `--set`.
pub fn config(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    let (mut env, mut sets) = (Vec::new(), Vec::new());
    for part in parts.take(16) {
        // Arguments with line breaks are shown as they were given.
        let Ok(text) = std::str::from_utf8(part) else { continue };
        if text.chars().any(char::is_control) {
            continue;
        }
        match text.split_once('=') {
            Some((name, value)) if name.starts_with("SHARDGATE_") => {
                env.push((name.to_owned(), value.to_owned()));
            }
            Some(_) | None => sets.push(text.to_owned()),
        }
    }
    // It would be read for as long as it gives something.
    if names_a_device(data) {
        return;
    }
    FOLDER.with(|folder| check(folder, file, &env, &sets));
}

fn names_a_device(data: &[u8]) -> bool {
    [b"/dev".as_slice(), b"/proc", b"/sys"]
        .iter()
        .any(|name| data.windows(name.len()).any(|part| part == *name))
}

fn check(folder: &Folder, file: &[u8], env: &[(String, String)], sets: &[String]) {
    let config = match folder.load(file, env, sets) {
        Ok(config) => config,
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a fault");
            let said = errors.to_string();
            assert_eq!(said.lines().count(), errors.0.len(), "one line for each fault:\n{said}");
            assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "shown on terminals: {said:?}");
            return;
        }
    };
    // A relative path of a variable is one of the working directory, and would be one of the file's folder when printed.
    let logs = [&config.log.access, &config.log.audit];
    let log_is_relative = logs.iter().any(|log| matches!(log, LogTarget::File(path) if path.is_relative()));
    let (file, consul) = match &config.discovery {
        DiscoveryConfig::File(section) => (Some(&section.file), None),
        DiscoveryConfig::Consul(section) => (None, Some(section)),
    };
    let of_consul = consul.into_iter().flat_map(|section| {
        let client = section.client.iter().flat_map(|(cert, key)| [cert, key]);
        section.token_file.iter().chain(&section.ca).chain(&section.state_file).chain(client)
    });
    if file.into_iter().chain(of_consul).any(|path| path.is_relative()) || log_is_relative {
        return;
    }
    let printed = config.to_string();
    match folder.load(printed.as_bytes(), &[], &[]) {
        Ok(again) => assert_eq!(config, again, "printed and read back:\n{printed}"),
        Err(errors) => panic!("what is printed is refused: {errors}\n{printed}"),
    }
}
