//! The shared files of the AWS tools: `~/.aws/config` and `~/.aws/credentials`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Profiles by name, each with its settings; what both files say of one is put together, and the
/// credentials file wins.
#[derive(Debug, Default)]
pub(super) struct Profiles(BTreeMap<String, BTreeMap<String, String>>);

impl Profiles {
    /// Reads both files; one that is not there says nothing.
    pub(super) fn read(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let home = variable("HOME").map(PathBuf::from);
        let place = |name: &str, usual: &str| {
            let usual = home.as_ref().map(|home| home.join(".aws").join(usual));
            variable(name).map(PathBuf::from).or(usual)
        };
        let text = |path: Option<PathBuf>| {
            let path = path.as_deref().map(Path::to_path_buf);
            path.and_then(|path| std::fs::read_to_string(path).ok())
                .unwrap_or_default()
        };
        let config = text(place("AWS_CONFIG_FILE", "config"));
        let credentials = text(place("AWS_SHARED_CREDENTIALS_FILE", "credentials"));
        Self::parse(&config, &credentials)
    }

    fn parse(config: &str, credentials: &str) -> Self {
        let mut profiles = Self::default();
        for (text, prefix) in [(config, "profile "), (credentials, "")] {
            let mut current: Option<String> = None;
            for line in text.lines() {
                let is_nested = line.starts_with([' ', '\t']);
                let line = line.trim();
                if line.is_empty() || line.starts_with(['#', ';']) {
                    continue;
                }
                let head = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                if let Some((head, _)) = head {
                    let head = head.trim();
                    let name = match head.strip_prefix(prefix) {
                        Some(name) => Some(name.trim()),
                        None => Some(head).filter(|head| *head == "default"),
                    };
                    current = name.map(str::to_owned);
                    continue;
                }
                let (Some(profile), Some((name, value))) = (&current, line.split_once('=')) else {
                    continue;
                };
                if is_nested {
                    continue;
                }
                let profile = profiles.0.entry(profile.clone()).or_default();
                profile.insert(name.trim().to_lowercase(), value.trim().to_owned());
            }
        }
        profiles
    }

    /// One profile.
    pub(super) fn get(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.0.get(name)
    }

    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_are_read_together() {
        let config = "[default]\nregion = eu-west-1\n# no\n[profile dev]\nregion=eu-north-1\ns3 =\n  addressing_style = path\nrole_arn = arn:r\n[sso-session x]\nregion = no";
        let credentials = "[default]\naws_access_key_id = A\naws_secret_access_key = s=1\n\n[dev]\nRegion = us-east-2";
        let profiles = Profiles::parse(config, credentials);
        let names: Vec<_> = profiles.names().collect();
        assert_eq!(names, ["default", "dev"]);
        let default = profiles.get("default").unwrap();
        assert_eq!(default["aws_secret_access_key"], "s=1");
        assert_eq!(default["region"], "eu-west-1");
        let dev = profiles.get("dev").unwrap();
        assert_eq!((&*dev["region"], &*dev["role_arn"]), ("us-east-2", "arn:r"));
        assert!(!dev.contains_key("addressing_style"));
    }
}
