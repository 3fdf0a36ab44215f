//! The command line: what it understands, and the thin glue to what does the work.

pub mod destinations;
mod doctor;
mod functions;
pub mod options;
mod output;
mod plan;
mod ps;
mod recording;
mod run;
mod table;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, FileError};
use options::{Logs, Run, RunOptions};

/// Zero-code tracing for running Linux processes.
#[derive(Debug, Parser)]
#[command(name = "remora", version, about, long_about = None, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    logs: Logs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace running processes
    Run(Run),
    /// Start a program and trace it from its first instruction, with its descendants
    Exec {
        #[command(flatten)]
        options: Box<RunOptions>,
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// List what could be traced here
    Ps(ps::Ps),
    /// List functions that can be traced, and what can be told of them
    Functions(functions::Functions),
    /// Show exactly which probes would be attached where, and why; attaches nothing
    Plan(plan::Plan),
    /// Tell what this kernel and these privileges allow, and what capturing costs here
    Doctor(doctor::Doctor),
    /// Write the raw events of processes into a file
    Record(recording::Record),
    /// Make spans of a recording, without a kernel
    Replay(recording::Replay),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into a directory
    Man {
        /// The directory; it must exist
        directory: PathBuf,
    },
    /// Do socket operations on demand (used by `doctor`)
    #[command(hide = true)]
    Exercise,
    /// Call functions on demand (used where function probes are tried)
    #[command(hide = true)]
    ExerciseFunctions,
    /// Wait for a byte on a descriptor, then become a program (used by `exec`)
    #[command(hide = true)]
    Hold {
        /// The descriptor
        fd: i32,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Exit codes: done, failed, wrong usage.
const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The flags make no sense together.
    #[error(transparent)]
    Usage(#[from] options::UsageError),
    /// The privileges are missing.
    #[error(transparent)]
    Privileges(#[from] crate::platform::privileges::PrivilegeError),
    /// Tracing failed.
    #[error(transparent)]
    Run(#[from] crate::run::RunError),
    /// Functions could not be listed.
    #[error(transparent)]
    Functions(#[from] functions::ListError),
    /// A held program could not be started.
    #[error("cannot start {program}")]
    Become {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A recording could not be opened.
    #[error("cannot open the recording {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A recording could not be replayed to its end.
    #[error("cannot replay {file}")]
    Replay {
        /// The file.
        file: String,
        /// What is wrong with it.
        #[source]
        source: crate::pipeline::recording::RecordingError,
    },
    /// Something of the system could not be read.
    #[error("cannot read {what}")]
    Read {
        /// What.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Output could not be written.
    #[error("cannot write {what}")]
    Write {
        /// What.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let (args, from_file) = match arguments() {
        Ok(read) => read,
        Err(error) => {
            eprintln!("remora: error: {}", output::chain(&error));
            return ExitCode::from(USAGE);
        }
    };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // Nowhere is left to tell that the message could not be printed.
            let _ = error.print();
            let without = Cli::try_parse_from(std::env::args_os()).err();
            let is_given = without.is_some_and(|own| own.to_string() == error.to_string());
            if let Some(file) = from_file.filter(|_| code == USAGE && !is_given) {
                eprintln!("remora: that is in the configuration {}", file.display());
            }
            return ExitCode::from(code);
        }
    };
    output::start_logs(&cli.logs);
    match dispatch(cli.command, cli.logs.color) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("remora: error: {}", output::chain(&error));
            let usage = matches!(error, CliError::Usage(_));
            ExitCode::from(if usage { USAGE } else { FAILED })
        }
    }
}

/// The arguments of this process, with those of the configuration file that they name, and that file.
fn arguments() -> Result<(Vec<OsString>, Option<PathBuf>), FileError> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let mut own = args.iter().take_while(|arg| *arg != "--");
    let mut file = None;
    while let Some(arg) = own.next() {
        if arg == "--config" {
            file = own.next().map(PathBuf::from);
        } else if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            file = Some(PathBuf::from(path));
        }
    }
    let args = match &file {
        Some(file) => config::merge(&args, config::read(file)?),
        None => args,
    };
    Ok((args, file))
}

fn dispatch(command: Command, color: options::Color) -> Result<(), CliError> {
    match command {
        Command::Run(options) => run::run(options, color),
        Command::Exec { options, command } => run::exec(*options, command, color),
        Command::Ps(options) => ps::ps(&options),
        Command::Functions(options) => functions::functions(&options),
        Command::Plan(options) => plan::plan(&options),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Record(options) => recording::record(options),
        Command::Replay(options) => recording::replay(options, color),
        Command::Exercise => doctor::exercise(),
        Command::ExerciseFunctions => crate::probe::function::exercise::run()
            .map_err(|source| CliError::Read { what: "what to call", source }),
        Command::Completions { shell } => {
            // Into memory first: clap would panic at a reader that has seen enough.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "remora", &mut script);
            table::print(&String::from_utf8_lossy(&script))
        }
        Command::Man { directory } => clap_mangen::generate_to(Cli::command(), directory)
            .map_err(|source| CliError::Write { what: "the man pages", source }),
        Command::Hold { fd, command } => {
            let source = crate::run::become_program(fd, &command);
            let program = command.first().map(|program| program.to_string_lossy().into_owned());
            Err(CliError::Become { program: program.unwrap_or_default(), source })
        }
    }
}
