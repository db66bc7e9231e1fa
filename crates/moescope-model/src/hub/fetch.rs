//! Files of a repository, fetched into the cache piece by piece.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::Deserialize;

use super::{
    HubError, HubId, HubOptions, HubProgress,
    cache::{self, RepoCache},
    content,
    http::{Client, Reply},
    id::is_commit,
    plan::{Plan, RepoFile, RepoInfo},
};

/// Largest description of a repository that is read.
const INFO_LIMIT: u64 = 64 << 20;
/// Attempts without a byte more after which a broken connection is given up.
const ATTEMPTS: u32 = 5;
/// Wait before the second attempt; doubled for each after it.
const WAIT: Duration = Duration::from_millis(200);
/// Bytes written at a time.
const PIECE: usize = 1 << 20;

/// Fetches the files of one repository.
pub(crate) struct Fetcher<'a> {
    id: &'a HubId,
    options: &'a HubOptions<'a>,
    cache: &'a RepoCache,
    client: Client,
}

/// What a file's address says of it.
struct Head {
    etag: String,
    size: u64,
}

/// The description of a repository.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

impl<'a> Fetcher<'a> {
    pub(crate) fn new(
        id: &'a HubId,
        options: &'a HubOptions<'a>,
        cache: &'a RepoCache,
    ) -> Result<Self, HubError> {
        Ok(Fetcher { id, options, cache, client: Client::new(id, options)? })
    }

    /// The commit of the revision and its files.
    pub(crate) fn info(&self) -> Result<RepoInfo, HubError> {
        let reply = self.client.get(&self.client.info_url(self.id), None)?;
        self.check_status(&reply, None)?;
        let url = reply.url;
        let mut text = Vec::new();
        reply
            .body
            .take(INFO_LIMIT)
            .read_to_end(&mut text)
            .map_err(|e| HubError::Network { url: url.clone(), reason: e.to_string() })?;
        let info: Info = serde_json::from_slice(&text)
            .map_err(|e| HubError::Answer { url: url.clone(), reason: e.to_string() })?;
        // It becomes a path in the cache.
        if !is_commit(&info.sha) {
            let reason = format!("{:?} is no commit", info.sha);
            return Err(HubError::Answer { url, reason });
        }
        let file = |s: Sibling| RepoFile { name: s.rfilename, size: s.size };
        Ok(RepoInfo { commit: info.sha, files: info.siblings.into_iter().map(file).collect() })
    }

    /// Fetches the files of a plan that are not there, and empties it.
    pub(crate) fn fetch(&self, repo: &RepoInfo, plan: &mut Plan) -> Result<(), HubError> {
        for file in std::mem::take(&mut plan.files) {
            let present = self.cache.snapshot(&repo.commit).dir.join(&file.name).is_file();
            if !present {
                self.file(repo, &file, plan)?;
            }
            plan.done += file.size.unwrap_or(0);
            if !present {
                self.report(&file, plan, 0);
            }
        }
        Ok(())
    }

    fn file(&self, repo: &RepoInfo, file: &RepoFile, plan: &Plan) -> Result<(), HubError> {
        let url = self.client.file_url(self.id, &repo.commit, &file.name);
        let head = self.head(&url, repo, file)?;
        let blob = self.cache.blob(&head.etag);
        if !is_whole(&blob, head.size) {
            let dir = blob.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir).map_err(|e| cache::error(dir, e))?;
            // One process at a time; another one may have finished it meanwhile.
            let lock_path = beside(&blob, "lock");
            let lock = File::create(&lock_path).map_err(|e| cache::error(&lock_path, e))?;
            lock.lock().map_err(|e| cache::error(&lock_path, e))?;
            if !is_whole(&blob, head.size) {
                let part = beside(&blob, "part");
                self.checked(&url, &part, &head, &|bytes| self.report(file, plan, bytes))?;
                fs::rename(&part, &blob).map_err(|e| cache::error(&blob, e))?;
            }
            let _ = fs::remove_file(&lock_path);
        }
        self.cache.link(&head.etag, &repo.commit, &file.name)
    }

    /// Asks for the first byte of a file: what it is and how long.
    fn head(&self, url: &str, repo: &RepoInfo, file: &RepoFile) -> Result<Head, HubError> {
        let reply = self.client.get(url, Some(0))?;
        self.check_status(&reply, Some(&file.name))?;
        let answer = |reason: String| HubError::Answer { url: url.to_owned(), reason };
        let etag = reply
            .hub_header("x-linked-etag")
            .or_else(|| reply.hub_header("etag"))
            .map(|etag| etag.trim_start_matches("W/").trim_matches('"'))
            .ok_or_else(|| answer("no etag".into()))?;
        // It becomes a path in the cache.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        if etag.is_empty() || etag.len() > 200 || !etag.bytes().all(plain) {
            return Err(answer(format!("the etag {etag:?} is no name of a content")));
        }
        if let Some(commit) = reply.hub_header("x-repo-commit")
            && commit != repo.commit
        {
            return Err(answer(format!("content of commit {commit}, not of {}", repo.commit)));
        }
        let linked = reply.hub_header("x-linked-size").and_then(|size| size.parse().ok());
        let size = linked.or_else(|| total(&reply)).or(file.size);
        let size = size.ok_or_else(|| answer("no length".into()))?;
        if let Some(told) = file.size.filter(|told| *told != size) {
            return Err(answer(format!("{size} bytes where the Hub says {told}")));
        }
        Ok(Head { etag: etag.to_owned(), size })
    }

    /// Writes the content behind `url` to `part` and holds it against its hash; once more from the start where
    /// it is another, since bytes of an earlier run may have been damaged on the disk.
    fn checked(
        &self,
        url: &str,
        part: &Path,
        head: &Head,
        report: &dyn Fn(u64),
    ) -> Result<(), HubError> {
        for _ in 0..2 {
            self.content(url, part, head.size, report)?;
            if content::is_of(part, &head.etag).map_err(|e| cache::error(part, e))? {
                return Ok(());
            }
            fs::remove_file(part).map_err(|e| cache::error(part, e))?;
        }
        Err(HubError::Content { url: url.to_owned(), hash: head.etag.clone() })
    }

    /// Writes the content behind `url` to `part`, going on from what is there, over broken connections.
    fn content(
        &self,
        url: &str,
        part: &Path,
        size: u64,
        report: &dyn Fn(u64),
    ) -> Result<(), HubError> {
        let mut failures = 0;
        loop {
            let before = length(part);
            let reason = match self.some_content(url, part, size, report) {
                Ok(()) if length(part) == size => return Ok(()),
                Ok(()) => "it ended early".to_owned(),
                Err(HubError::Network { reason, .. }) => reason,
                Err(HubError::Status { status, .. }) if status >= 500 => format!("HTTP {status}"),
                Err(other) => return Err(other),
            };
            failures = if length(part) > before { 1 } else { failures + 1 };
            if failures >= ATTEMPTS {
                let (url, at) = (url.to_owned(), length(part));
                return Err(HubError::Broken { url, attempts: failures, at, reason });
            }
            thread::sleep(WAIT * 2u32.pow(failures - 1));
        }
    }

    fn some_content(
        &self,
        url: &str,
        part: &Path,
        size: u64,
        report: &dyn Fn(u64),
    ) -> Result<(), HubError> {
        let io = |e: std::io::Error| match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                HubError::Full { path: part.to_owned(), needed: size - length(part).min(size) }
            }
            _ => cache::error(part, e),
        };
        let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(io)?;
        if length(part) > size {
            file.set_len(0).map_err(io)?;
        }
        let mut at = length(part);
        if at == size {
            return Ok(());
        }
        let reply = self.client.get(url, Some(at))?;
        self.check_status(&reply, None)?;
        // Who sends from another byte than asked for sends everything.
        if start(&reply) != at {
            if start(&reply) != 0 {
                let reason = format!("bytes from {} where {at} were asked for", start(&reply));
                return Err(HubError::Answer { url: url.to_owned(), reason });
            }
            file.set_len(0).map_err(io)?;
            at = 0;
        }
        let mut body = reply.body.take(size - at);
        let mut piece = vec![0; PIECE];
        loop {
            report(at);
            let n = body
                .read(&mut piece)
                .map_err(|e| HubError::Network { url: url.to_owned(), reason: e.to_string() })?;
            if n == 0 {
                return Ok(());
            }
            file.write_all(&piece[..n]).map_err(io)?;
            at += n as u64;
        }
    }

    fn report(&self, file: &RepoFile, plan: &Plan, bytes: u64) {
        let done = plan.done + bytes;
        (self.options.progress)(HubProgress { file: &file.name, done, total: plan.total });
    }

    /// Turns a refusal into an error that says the way out.
    fn check_status(&self, reply: &Reply, file: Option<&str>) -> Result<(), HubError> {
        let (id, endpoint) = (self.id.to_string(), self.options.endpoint.clone());
        let code = reply.header("x-error-code").unwrap_or_default();
        let what = match (code, file) {
            ("RevisionNotFound", _) => format!("the revision {:?}", self.id.revision),
            (_, Some(file)) if code != "RepoNotFound" => format!("the file {file}"),
            _ => "the repository or revision".to_owned(),
        };
        Err(match reply.status {
            200 | 206 => return Ok(()),
            // The Hub answers so for what does not exist, too, to whom it does not know.
            401 if code == "RepoNotFound" => HubError::NotFound { id, what, endpoint },
            404 => HubError::NotFound { id, what, endpoint },
            status @ (401 | 403) => HubError::Denied {
                id,
                status,
                why: match (code, &self.options.token) {
                    ("GatedRepo", None) => ": the model is gated".into(),
                    ("GatedRepo", Some(_)) => {
                        ": the model is gated, and the token has no access".into()
                    }
                    (_, Some(_)) => ": the token has no access".into(),
                    (_, None) => String::new(),
                },
                page: format!("{endpoint}/{}", self.id.repo),
                settings: format!("{endpoint}/settings/tokens"),
            },
            status => HubError::Status { url: reply.url.clone(), status },
        })
    }
}

/// The first byte of an answer's content.
fn start(reply: &Reply) -> u64 {
    let range = || reply.header("content-range")?.strip_prefix("bytes ")?.split_once('-');
    range().and_then(|(start, _)| start.parse().ok()).unwrap_or(0)
}

/// The length of the whole content.
fn total(reply: &Reply) -> Option<u64> {
    let range = reply.header("content-range").and_then(|range| range.rsplit_once('/'));
    let length = || reply.header("content-length").filter(|_| reply.status == 200);
    range.map(|(_, total)| total).or_else(length)?.parse().ok()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn is_whole(path: &Path, size: u64) -> bool {
    path.is_file() && length(path) == size
}

/// `blobs/ETAG.EXTENSION`.
fn beside(blob: &Path, extension: &str) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
