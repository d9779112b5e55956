//! `evermill parked edit ID`: another payload, from a file or out of an editor.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use evermill_api::Method;

use super::{run_of, show};
use crate::failure::Failure;
use crate::reach::{self, Reach, part};
use crate::table::print;

#[derive(clap::Args)]
pub(in crate::cli) struct Args {
    /// As `parked ls` lists it
    id: String,
    /// The new payload: @FILE, @- for standard input, or the text itself; without it $EDITOR is
    /// opened on the present one
    #[arg(long, value_name = "@FILE|TEXT")]
    payload: Option<String>,
    /// Which of several events, as `parked show` counts them
    #[arg(long, value_name = "N", default_value_t = 0)]
    event: u32,
    /// Only say what would be replaced
    #[arg(long)]
    dry_run: bool,
}

/// Replaces the payload.
pub(super) fn run(reach: &Reach, args: &Args) -> Result<(), Failure> {
    let payload = match &args.payload {
        Some(given) => read(given)?,
        None => match from_editor(reach, args)? {
            Some(changed) => changed,
            None => return print("nothing was changed\n"),
        },
    };
    let size = payload.len();
    if args.dry_run {
        let before = present(reach, args)?.len();
        return print(&format!(
            "1 would be edited: {} has a payload of {before} bytes and would have one of {size}\n",
            args.id
        ));
    }
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("id", &args.id)
        .append_pair("event", &args.event.to_string())
        .finish();
    let path = format!("runs/{}/parked/payload?{query}", part(run_of(&args.id)?));
    let request = reach::request(Method::Put, &path, Bytes::from(payload));
    let _: serde_json::Value = reach.ask(&request)?;
    print(&format!(
        "{} has a payload of {size} bytes now; `evermill parked retry {}` runs it again\n",
        args.id, args.id
    ))
}

fn read(given: &str) -> Result<Vec<u8>, Failure> {
    let failed = |cause: std::io::Error| Failure::usage(format!("--payload {given}: {cause}"));
    match given.strip_prefix('@') {
        None => Ok(given.as_bytes().to_vec()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        }
        Some(path) => std::fs::read(path).map_err(failed),
    }
}

/// `None` when it was left as it is.
fn from_editor(reach: &Reach, args: &Args) -> Result<Option<Vec<u8>>, Failure> {
    let editor = ["VISUAL", "EDITOR"].iter().find_map(std::env::var_os);
    let editor = editor.filter(|editor| !editor.is_empty()).ok_or_else(|| {
        Failure::usage("no editor: set $EDITOR, or give the payload by --payload @FILE")
    })?;
    let old = present(reach, args)?;
    let failed = |cause: std::io::Error| Failure::failed(format!("the file to edit: {cause}"));
    let suffix = if serde_json::from_slice::<serde_json::Value>(&old).is_ok() {
        ".json"
    } else {
        ".txt"
    };
    let mut file = tempfile::Builder::new()
        .prefix("evermill-payload-")
        .suffix(suffix)
        .tempfile()
        .map_err(failed)?;
    file.write_all(&old).map_err(failed)?;
    edit(&editor, file.path())?;
    let new = std::fs::read(file.path()).map_err(failed)?;
    // Editors like to end a file with a line's end that was not there.
    let added = new.strip_suffix(b"\n").is_some_and(|new| new == old);
    Ok((new != old && !added).then_some(new))
}

/// The payload as it is.
fn present(reach: &Reach, args: &Args) -> Result<Vec<u8>, Failure> {
    let entry = show::one(reach, &args.id)?;
    let event = entry.payload.get(args.event as usize).ok_or_else(|| {
        let count = entry.payload.len();
        Failure::usage(format!("'{}' has {count} events, counted from 0", args.id))
    })?;
    let value = event.value.as_ref().and_then(|value| value.bytes());
    Ok(value.unwrap_or_default())
}

/// Through the shell, since `$EDITOR` may hold arguments.
fn edit(editor: &std::ffi::OsStr, path: &Path) -> Result<(), Failure> {
    let mut script = editor.to_owned();
    script.push(" \"$1\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").arg(path);
    let name = editor.to_string_lossy();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::failed(format!(
            "{name} ended with {status}; nothing was changed"
        ))),
        Err(cause) => Err(Failure::failed(format!("{name}: {cause}"))),
    }
}
