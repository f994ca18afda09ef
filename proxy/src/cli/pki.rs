//! `shardgate pki`: the mesh CA and certificates, so that nobody needs openssl.

use std::process::ExitCode;

use shardgate_peering::Environment;
use shardgate_peering::core::{IdError, PeerId};
use shardgate_peering::pki::{CaFiles, PkiError};

use super::{PkiArgs, PkiCommand, refuse};

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{flag}: {source}")]
    Name { flag: &'static str, source: IdError },
    #[error(transparent)]
    Pki(#[from] PkiError),
}

pub(super) fn run(command: &PkiCommand) -> ExitCode {
    let (done, hint) = match command {
        PkiCommand::Init(args) => (init(args), "an existing CA is never overwritten"),
        PkiCommand::Issue { common, peer } => (issue(common, peer), "make the CA first: shardgate pki init"),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error, Some(hint)),
    }
}

#[expect(clippy::print_stdout, reason = "what was made is what the user wants to know")]
fn init(args: &PkiArgs) -> Result<(), Refused> {
    let ca = CaFiles::at(&args.dir);
    ca.init(&environment(args)?)?;
    println!("{}\n{}", ca.cert().display(), ca.key().display());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was made is what the user wants to know")]
fn issue(args: &PkiArgs, peer: &str) -> Result<(), Refused> {
    let peer = PeerId::parse(peer).map_err(|source| Refused::Name { flag: "--peer", source })?;
    let files = CaFiles::at(&args.dir).issue(&environment(args)?, &peer)?;
    println!("{}\n{}", files.cert.display(), files.key.display());
    Ok(())
}

fn environment(args: &PkiArgs) -> Result<Environment, Refused> {
    Environment::parse(&args.environment).map_err(|source| Refused::Name { flag: "--environment", source })
}
