//! `[pages]`: what errors look like. The files are read here, so that a response never waits for a disk.

use super::section::Section;
use super::value;
use super::write;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A page that does not fit is no error page.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// The statuses that the proxy answers with by itself, and the names of their fields.
const STATUSES: [(u16, &str); 8] = [
    (400, "400"),
    (403, "403"),
    (408, "408"),
    (429, "429"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

const PAGE: &str = "the path of an HTML file";
const DIR: &str = "the path of a folder that holds at least one of 400.html 403.html 408.html 429.html 500.html 502.html \
                   503.html 504.html";

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its content, HTML.
    pub body: Bytes,
}

/// Pages that replace the built-in ones. Default: none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagesConfig {
    pages: BTreeMap<u16, Page>,
    maintenance: Option<Page>,
    maintenance_retry_after: Duration,
}

impl Default for PagesConfig {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), maintenance: None, maintenance_retry_after: Duration::from_secs(30) }
    }
}

impl PagesConfig {
    /// The page for `status`, if it is replaced.
    #[must_use]
    pub fn get(&self, status: u16) -> Option<&Page> {
        self.pages.get(&status)
    }

    /// All replaced pages with their statuses.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Page)> {
        self.pages.iter().map(|(status, page)| (*status, page))
    }

    /// What people are shown when no shard is left, if it is not the page of 503.
    #[must_use]
    pub const fn maintenance(&self) -> Option<&Page> {
        self.maintenance.as_ref()
    }

    /// When whoever finds no shard may come again. Default 30 s: about as long as a shard takes to be back.
    #[must_use]
    pub const fn maintenance_retry_after(&self) -> Duration {
        self.maintenance_retry_after
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let mut pages = BTreeMap::new();
        let text = |expected| value::text(expected, |text: &str| (!text.is_empty()).then(|| text.to_owned()));
        if let Some(given) = section.get("dir", text(DIR)) {
            let dir = section.resolve("dir", &given);
            if let Err(expected) = read_dir(&dir, &mut pages) {
                section.refuse("dir", &given, expected);
            }
        }
        for (status, name) in STATUSES {
            if let Some(given) = section.get(name, text(PAGE)) {
                let path = section.resolve(name, &given);
                match read_page(path) {
                    Ok(page) => {
                        pages.insert(status, page);
                    }
                    Err(expected) => section.refuse(name, &given, expected),
                }
            }
        }
        let mut maintenance = None;
        if let Some(given) = section.get("maintenance", text(PAGE)) {
            match read_page(section.resolve("maintenance", &given)) {
                Ok(page) => maintenance = Some(page),
                Err(expected) => section.refuse("maintenance", &given, expected),
            }
        }
        // Whole seconds are what the header can say.
        let pause = value::duration(Duration::from_secs(1)..=Duration::from_secs(86_400));
        let maintenance_retry_after = section.get("maintenance_retry_after", pause);
        section.finish();
        let maintenance_retry_after =
            maintenance_retry_after.unwrap_or_else(|| Self::default().maintenance_retry_after);
        Self { pages, maintenance, maintenance_retry_after }
    }
}

fn read_dir(dir: &Path, pages: &mut BTreeMap<u16, Page>) -> Result<(), String> {
    for (status, name) in STATUSES {
        let path = dir.join(format!("{name}.html"));
        if path.exists() {
            pages.insert(status, read_page(path)?);
        }
    }
    if pages.is_empty() { Err(DIR.to_owned()) } else { Ok(()) }
}

fn read_page(path: PathBuf) -> Result<Page, String> {
    let body = Bytes::from(value::read_file(&path, PAGE_BYTES_MAX)?);
    Ok(Page { path, body })
}

impl fmt::Display for PagesConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[pages]")?;
        for (status, page) in &self.pages {
            writeln!(f, "{status} = {}", write::path(&page.path))?;
        }
        if let Some(page) = &self.maintenance {
            writeln!(f, "maintenance = {}", write::path(&page.path))?;
        }
        writeln!(f, "maintenance_retry_after = {}", write::duration(self.maintenance_retry_after))
    }
}
