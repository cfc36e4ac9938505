//! Rights: what the gateway's user must be able to read and write, and what nobody else should.
//!
//! By owner, group and mode; access lists are not looked at.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Finding, disk::nearest};
use crate::{config::Config, journal::inspect};

const CHECK: &str = "rights";
const READ: u32 = 4;
const WRITE: u32 = 2;
const ENTER: u32 = 1;
/// Of the package.
const USER: &str = "tidegate";
/// It owns the serial ports.
const DIALOUT: &str = "dialout";

/// Whose rights are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

impl Subject {
    /// The process that runs; else who asks; else, as root asks, who the service runs as.
    fn found(config: &Config) -> Self {
        let running = inspect::in_use_by(&config.journal.dir);
        let running = running.and_then(|pid| Self::of_process(&pid));
        let own = || Self::of_process("self").filter(|own| own.uid != 0);
        running
            .or_else(own)
            .unwrap_or_else(|| Self::of_service(&config.journal.dir))
    }

    fn of_process(pid: &str) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::of_status(&status)
    }

    /// proc(5): real, effective, saved and filesystem ids.
    fn of_status(status: &str) -> Option<Self> {
        let numbers = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.into_iter()
                .flat_map(str::split_whitespace)
                .filter_map(|id| id.parse().ok())
                .collect()
        };
        let uid = *numbers("Uid:").get(1)?;
        let mut groups = numbers("Groups:");
        groups.extend(numbers("Gid:").get(1));
        Some(Self {
            name: name_of(uid),
            uid,
            groups,
        })
    }

    /// Whoever owns the state; where it is root's or not there, the package's user. The unit adds `dialout`.
    fn of_service(dir: &Path) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        let owner = fs::metadata(nearest(dir)).map_or(0, |found| found.uid());
        let user = accounts(&passwd).find(|(name, ..)| *name == USER);
        let uid = if owner == 0 {
            user.map_or(0, |(_, uid, _)| uid)
        } else {
            owner
        };
        let account = accounts(&passwd).find(|(_, id, _)| *id == uid);
        let name = account.map_or_else(|| uid.to_string(), |(name, ..)| name.to_owned());
        let mut groups: Vec<u32> = account.into_iter().map(|(_, _, gid)| gid).collect();
        groups.extend(groups_of(&group, &name));
        if name == USER {
            groups.extend(group_id(&group, DIALOUT));
        }
        Self { name, uid, groups }
    }

    /// Somebody who has nothing to do with it.
    fn stranger() -> Self {
        Self {
            name: "others".to_owned(),
            uid: u32::MAX,
            groups: Vec::new(),
        }
    }

    fn may(&self, found: &fs::Metadata, what: u32) -> bool {
        if self.uid == 0 {
            return true;
        }
        let mode = found.mode();
        let bits = if found.uid() == self.uid {
            mode >> 6
        } else if self.groups.contains(&found.gid()) {
            mode >> 3
        } else {
            mode
        };
        bits & what == what
    }

    /// The first directory on the way that it may not enter, else the path itself if it may not do that with it.
    fn stopped_at(&self, path: &Path, what: u32) -> io::Result<Option<PathBuf>> {
        let path = fs::canonicalize(path)?;
        let mut way: Vec<&Path> = path.ancestors().skip(1).collect();
        way.reverse();
        for directory in way {
            if !self.may(&fs::metadata(directory)?, ENTER) {
                return Ok(Some(directory.to_owned()));
            }
        }
        let may = self.may(&fs::metadata(&path)?, what);
        Ok((!may).then_some(path))
    }
}

pub(super) fn look(config: &Config) -> Vec<Finding> {
    judge(config, &Subject::found(config))
}

fn judge(config: &Config, subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    let who = &subject.name;
    let state = nearest(&config.journal.dir);
    findings.extend(needs(subject, &state, READ | WRITE | ENTER, "the state", |_| {
        format!("chown -R {who} {}", state.display())
    }));
    findings.extend(exposed(&state, WRITE, "the state", "chmod o-w"));
    let has_secrets = !config.sinks.http.is_empty();
    for file in &*config.files {
        findings.extend(needs(subject, &file.path, READ, "the configuration", |at| {
            format!("chgrp {who} {0} && chmod g+rX {0}", at.display())
        }));
        let open = exposed(&file.path, WRITE, "the configuration", "chmod o-w");
        let readable = || {
            let found = has_secrets
                .then(|| exposed(&file.path, READ, "the configuration", "chmod o-r"))
                .flatten()?;
            let found_said = format!("{}; URLs and headers of webhooks may be secrets", found.found);
            Some(Finding {
                found: found_said,
                ..found
            })
        };
        findings.extend(open.or_else(readable));
    }
    for (key, path) in secrets(config) {
        let remedy = |at: &Path| format!("chgrp {who} {0} && chmod g+rX {0}", at.display());
        findings.extend(needs(subject, &path, READ, key, remedy));
        findings.extend(exposed(&path, READ, key, "chmod o-r"));
    }
    for line in &config.serial {
        let remedy = |_: &Path| format!("usermod -aG {DIALOUT} {who}, and start the gateway again");
        // A port that is not there is told as such.
        if line.port.exists() {
            findings.extend(needs(
                subject,
                &line.port,
                READ | WRITE,
                &format!("line {}", line.name),
                remedy,
            ));
        }
    }
    if findings.is_empty() {
        let said = format!("{who} may use its state, configuration, secrets and ports; others see no secret");
        findings.push(Finding::ok(CHECK, said));
    }
    findings
}

/// The files whose content is nobody else's business, by their keys.
fn secrets(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mqtt = config.sinks.mqtt.iter();
    let mqtt = mqtt.flat_map(|sink| [("password-file", &sink.password_file), ("key", &sink.key)]);
    let http = config.sinks.http.iter();
    let http = http.flat_map(|sink| {
        [
            ("bearer-file", &sink.bearer_file),
            ("signing-key-file", &sink.signing_key_file),
        ]
    });
    let all = mqtt.chain(http);
    all.filter_map(|(key, path)| Some((key, path.clone()?))).collect()
}

/// A finding if the subject may not do that, or if nobody can say.
fn needs(
    subject: &Subject,
    path: &Path,
    what: u32,
    about: &str,
    remedy: impl Fn(&Path) -> String,
) -> Option<Finding> {
    let shown = path.display();
    match subject.stopped_at(path, what) {
        Ok(None) => None,
        Ok(Some(at)) => {
            let act = if what & WRITE > 0 { "write" } else { "read" };
            let way = if at == *path {
                String::new()
            } else {
                format!(" (it stops at {})", at.display())
            };
            let said = format!("{about}: {} may not {act} {shown}{way}", subject.name);
            Some(Finding::failure(CHECK, said, remedy(&at)))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(Finding::note(
            CHECK,
            format!("{about}: {shown} cannot be looked at by this user: run it as root"),
        )),
        Err(error) => Some(Finding::failure(
            CHECK,
            format!("{about}: {shown}: {error}"),
            "put the file there, or name another",
        )),
    }
}

/// A finding if somebody else may do that.
fn exposed(path: &Path, what: u32, about: &str, remedy: &str) -> Option<Finding> {
    let reached = matches!(Subject::stranger().stopped_at(path, what), Ok(None));
    // The sticky bit keeps others from each other's files: /tmp.
    let sticky = || fs::metadata(path).is_ok_and(|found| found.mode() & 0o1000 != 0);
    let act = if what & WRITE > 0 { "write" } else { "read" };
    (reached && !(what & WRITE > 0 && sticky())).then(|| {
        let said = format!("{about}: everybody on this machine may {act} {}", path.display());
        Finding::warning(CHECK, said, format!("{remedy} {}", path.display()))
    })
}

fn name_of(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = accounts(&passwd).find(|(_, id, _)| *id == uid);
    account.map_or_else(|| format!("user {uid}"), |(name, ..)| name.to_owned())
}

/// passwd(5): name, user id, group id.
fn accounts(passwd: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// group(5): the groups that list a user.
fn groups_of(groups: &str, user: &str) -> Vec<u32> {
    let lists = groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let id = fields.nth(2)?.parse().ok()?;
        fields
            .next()?
            .split(',')
            .any(|member| member == user)
            .then_some(id)
    });
    lists.collect()
}

fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::doctor::Severity;

    fn subject(uid: u32, groups: &[u32]) -> Subject {
        Subject {
            name: "tidegate".to_owned(),
            uid,
            groups: groups.to_vec(),
        }
    }

    /// A file of this mode in a directory that everybody may enter.
    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn owner_group_and_others_have_the_rights_that_the_mode_says() {
        let (_dir, path) = file(0o640);
        let found = fs::metadata(&path).unwrap();
        let (owner, group) = (found.uid(), found.gid());
        let stopped = |subject: &Subject, what| subject.stopped_at(&path, what).unwrap();
        // Not root, whoever runs this: another user in the file's group, and one who is not.
        let other = owner + 4242;
        assert_eq!(stopped(&subject(other, &[group]), READ), None);
        assert_eq!(
            stopped(&subject(other, &[group]), WRITE),
            Some(fs::canonicalize(&path).unwrap())
        );
        assert_eq!(
            stopped(&subject(other, &[]), READ),
            Some(fs::canonicalize(&path).unwrap())
        );
        assert_eq!(stopped(&subject(0, &[]), WRITE), None, "root may all");
    }

    #[test]
    fn a_secret_that_everybody_may_read_is_to_be_looked_at() {
        let (_dir, path) = file(0o644);
        let found = exposed(&path, READ, "password-file", "chmod o-r").expect("a finding");
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.remedy.unwrap().starts_with("chmod o-r /"));
        let (_dir, path) = file(0o640);
        assert_eq!(exposed(&path, READ, "password-file", "chmod o-r"), None);
        // Nobody gets to it.
        let (dir, path) = file(0o644);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(exposed(&path, READ, "password-file", "chmod o-r"), None);
    }

    #[test]
    fn what_the_user_may_not_do_fails_and_names_where_it_stops() {
        let (dir, path) = file(0o644);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let owner = fs::metadata(&path).unwrap().uid();
        let found =
            needs(&subject(owner + 4242, &[]), &path, READ, "key", |_| String::new()).expect("a finding");
        assert_eq!(found.severity, Severity::Failure);
        assert!(found.found.contains("it stops at"), "{}", found.found);
        let missing = needs(&subject(0, &[]), Path::new("/nowhere/key"), READ, "key", |_| {
            String::new()
        });
        assert_eq!(missing.expect("a finding").severity, Severity::Failure);
    }

    #[test]
    fn accounts_and_groups_are_read_as_the_system_keeps_them() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\ntidegate:x:997:995::/var/lib/tidegate:/usr/sbin/nologin\n";
        assert_eq!(accounts(passwd).nth(1), Some(("tidegate", 997, 995)));
        let group = "root:x:0:\ndialout:x:20:pi,tidegate\nvideo:x:44:pi\n";
        assert_eq!(groups_of(group, "tidegate"), [20]);
        assert_eq!(groups_of(group, "gate"), Vec::<u32>::new());
        assert_eq!(group_id(group, "dialout"), Some(20));
        let status =
            "Name:\ttidegate\nUid:\t997\t997\t997\t997\nGid:\t995\t995\t995\t995\nGroups:\t20 995 \n";
        let found = Subject::of_status(status).expect("a process");
        assert_eq!((found.uid, found.groups), (997, vec![20, 995, 995]));
    }
}
