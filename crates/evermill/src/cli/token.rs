//! `evermill token create|ls|revoke`: who may ask a server over TCP. The file is changed here, and a server that
//! runs sees it with its next request.

use std::path::PathBuf;
use std::time::Duration;

use evermill_api::{Role, Token, TokenFault, Tokens, Wanted};
use serde_json::json;

use super::place::{now_ms, shown};
use crate::config::Config;
use crate::duration;
use crate::failure::Failure;
use crate::on_record;
use crate::table::{print, table};
use crate::vault;

/// What can be typed behind `token`.
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Make a token, and print it: it is shown this once. From the first one on, everybody needs one over TCP
    Create {
        /// Whose it will be, such as ci or anna
        #[arg(value_name = "NAME")]
        name: String,
        /// viewer looks, operator looks after runs, admin looks after the engine
        #[arg(long, value_name = "ROLE", default_value = "viewer", value_parser = role)]
        role: Role,
        /// Good for this DAG alone; may be given several times
        #[arg(long = "dag", value_name = "DAG")]
        dags: Vec<String>,
        /// For how long it is good, such as 30d; for ever when absent
        #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
        expires: Option<Duration>,
        /// The token and what is known of it as a JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the tokens, not what they are
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Take a token back; its next request is refused
    Revoke {
        /// Its id or its name
        #[arg(value_name = "TOKEN")]
        token: String,
    },
}

fn role(text: &str) -> Result<Role, String> {
    match text {
        "viewer" => Ok(Role::Viewer),
        "operator" => Ok(Role::Operator),
        "admin" => Ok(Role::Admin),
        _ => Err("want viewer, operator or admin".to_owned()),
    }
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::Guest => "guest",
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

fn failed(fault: &TokenFault) -> Failure {
    match fault {
        TokenFault::Taken(_) | TokenFault::Unknown(_) => Failure::usage(fault.to_string()),
        _ => Failure::failed(fault.to_string()),
    }
}

/// Makes, lists or revokes.
pub(super) fn run(args: &Args, data_dir: Option<PathBuf>) -> Result<(), Failure> {
    let folder = Config::read(data_dir, &[])?.data_dir;
    let tokens = Tokens::at(&folder);
    match args {
        Args::Create {
            name,
            role,
            dags,
            expires,
            json,
        } => {
            vault::make(&folder)?;
            let first = !tokens.are_used();
            let end = |age: Duration| now_ms().saturating_add(age.as_millis() as u64);
            let wanted = Wanted {
                name: name.clone(),
                role: *role,
                dags: (!dags.is_empty()).then(|| dags.iter().cloned().collect()),
                expires_ms: expires.map(end),
            };
            let (token, secret) = tokens.create(wanted).map_err(|fault| failed(&fault))?;
            on_record::add(&folder, "POST", &format!("/api/v1/tokens#{}", token.id));
            if *json {
                let mut told = told(&token);
                told["token"] = json!(secret);
                print(&format!("{told}\n"))?;
            } else {
                print(&format!("{secret}\n"))?;
            }
            eprintln!("keep it: it is not shown again");
            if first {
                eprintln!(
                    "from now on a server on {} asks everybody for a token; commands on this machine need none",
                    folder.display()
                );
            }
            Ok(())
        }
        Args::Ls { json } => {
            let all = tokens.list().map_err(|fault| failed(&fault))?;
            let used = tokens.last_used();
            let used = |token: &Token| used.get(&token.id).copied();
            if *json {
                let line = |token| {
                    let mut told = told(token);
                    told["last_used_ms"] = json!(used(token));
                    format!("{told}\n")
                };
                return print(&all.iter().map(line).collect::<String>());
            }
            let rows = all.iter().map(|token| row(token, used(token))).collect();
            print(&table(
                ["ID", "NAME", "ROLE", "DAGS", "CREATED", "EXPIRES", "USED"],
                rows,
                7,
            ))?;
            if all.is_empty() && tokens.are_used() {
                eprintln!("nobody gets in over TCP; `evermill token create NAME` makes a token");
            } else if all.is_empty() {
                eprintln!("no token is needed: a server answers this machine alone");
            }
            Ok(())
        }
        Args::Revoke { token } => {
            let gone = tokens.revoke(token).map_err(|fault| failed(&fault))?;
            on_record::add(&folder, "DELETE", &format!("/api/v1/tokens/{}", gone.id));
            eprintln!("{} ({}) is worth nothing any more", gone.name, gone.id);
            Ok(())
        }
    }
}

fn told(token: &Token) -> serde_json::Value {
    json!({
        "id": token.id,
        "name": token.name,
        "role": word(token.role),
        "dags": token.dags,
        "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
        "expired": token.is_over(),
    })
}

fn row(token: &Token, used: Option<u64>) -> [String; 7] {
    let time = |ms: u64| shown(i64::try_from(ms).unwrap_or(i64::MAX));
    let dags = token.dags.as_ref().map_or_else(
        || "all".to_owned(),
        |dags| {
            dags.iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        },
    );
    let expires = match token.expires_ms {
        None => "never".to_owned(),
        Some(_) if token.is_over() => "expired".to_owned(),
        Some(ms) => time(ms),
    };
    [
        token.id.clone(),
        token.name.clone(),
        word(token.role).to_owned(),
        dags,
        time(token.created_ms),
        expires,
        used.map_or_else(|| "never".to_owned(), time),
    ]
}
