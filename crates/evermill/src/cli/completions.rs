//! `evermill completions SHELL`: a script that lets the shell complete commands and options.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use crate::failure::Failure;
use crate::table::print;

/// What can be typed behind `completions`.
#[derive(clap::Args)]
#[command(after_help = "\
bash: evermill completions bash > ~/.local/share/bash-completion/completions/evermill
zsh:  evermill completions zsh > ~/.zfunc/_evermill   (with ~/.zfunc in $fpath)
fish: evermill completions fish > ~/.config/fish/completions/evermill.fish")]
pub(super) struct Args {
    /// Which shell
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "evermill", &mut script);
    print(&String::from_utf8_lossy(&script))
}
