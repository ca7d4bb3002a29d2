//! `nodewick doctor`, `nodewick status` and `nodewick support bundle`: their flags, output and exit codes.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use nodewick::admin::client::Client;
use nodewick::config::{Diagnostics, load};
use nodewick::doctor::{self, Colour, Site, status, support};

use super::{BAD_CONFIG, ConfigArgs, Output, print};

/// `nodewick doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    place: Place,
    /// Before installing: look only at what can be known without the agent (backends, cluster, config).
    #[arg(long)]
    pre: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// `nodewick status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    place: Place,
    /// Output format.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// `nodewick support`.
#[derive(Debug, Subcommand)]
pub(crate) enum Support {
    /// One archive of what somebody who helps needs: no log lines, no secrets.
    Bundle(BundleArgs),
}

/// `nodewick support bundle`.
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    #[command(flatten)]
    place: Place,
    /// File to write; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "nodewick-support.tar.gz")]
    output: PathBuf,
}

/// Which agent.
#[derive(Debug, Args)]
pub(crate) struct Place {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// The running agent's listener for machines, when it is not where the config says.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) address: Option<SocketAddr>,
}

impl Place {
    /// The site as the checks see it. A bad config is part of it.
    pub(crate) fn site(&self, pre: bool) -> anyhow::Result<Site> {
        let file = self
            .config
            .config
            .clone()
            .filter(|path| !path.as_os_str().is_empty())
            .or_else(load::default_file);
        let loaded = match self.config.load() {
            Ok(loaded) => Ok(loaded),
            Err(error) => Err(error.downcast::<Diagnostics>()?),
        };
        let mut site = Site::new(loaded, file, pre);
        site.address = self.address;
        Ok(site)
    }

    /// The running agent's listener.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        if let Some(address) = self.address {
            return Ok(Client::new(address));
        }
        let config = self.config.load()?.config;
        let address = config.admin.address().map_err(anyhow::Error::msg)?;
        let address = address.context("the agent has no listener for machines: [admin] listen is off")?;
        Ok(Client::new(address))
    }
}

pub(crate) fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let site = args.place.site(args.pre)?;
    let report = doctor::examine(&site);
    print(&match args.output {
        Output::Text => report.text(Colour::of_stdout()),
        Output::Json => report.json(),
    })?;
    Ok(match (&site.loaded, report.is_ok()) {
        (Err(_), _) => ExitCode::from(BAD_CONFIG),
        (Ok(_), true) => ExitCode::SUCCESS,
        (Ok(_), false) => ExitCode::FAILURE,
    })
}

pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let screen = status::look(args.place.client()?);
    print(&match args.output {
        Output::Text => screen.text(Colour::of_stdout()),
        Output::Json => screen.json(),
    })?;
    Ok(match screen.state {
        status::State::Ok => ExitCode::SUCCESS,
        status::State::Degraded => ExitCode::from(1),
        status::State::Down => ExitCode::from(2),
    })
}

pub(crate) fn support(verb: &Support) -> anyhow::Result<ExitCode> {
    let Support::Bundle(args) = verb;
    let site = args.place.site(false)?;
    let mut archive = Vec::new();
    support::bundle(&site, &mut archive).context("cannot make the archive")?;
    if args.output == Path::new("-") {
        std::io::stdout().lock().write_all(&archive).context("cannot write to stdout")?;
        return Ok(ExitCode::SUCCESS);
    }
    write_private(&args.output, &archive).with_context(|| {
        format!("cannot write {}; give another place with -o, or `-o -`", args.output.display())
    })?;
    eprint!("{}", support::CONTENTS);
    print(&format!("{}\n", args.output.display()))
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file =
        std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
