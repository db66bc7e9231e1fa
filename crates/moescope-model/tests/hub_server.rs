//! A Hub of the machine's own: enough of the protocol for one repository, with faults to order.
//!
//! Weights lie on a second address, as they do on the real one. Nothing leaves the machine.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

/// What `main` is.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// What the tag `v1` is.
pub(crate) const TAGGED: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Whether it went to the address of the weights.
    pub(crate) cdn: bool,
    pub(crate) path: String,
    /// Name in lower case, value.
    pub(crate) headers: BTreeMap<String, String>,
}

/// What goes wrong.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// Every file needs this token.
    pub(crate) token: Option<String>,
    /// Every answer has this status and error code.
    pub(crate) refuse: Option<(u16, &'static str)>,
    /// Answers of the second address break off after this many bytes, this many times.
    pub(crate) break_after: Option<(usize, u32)>,
    /// Ranges are answered with everything.
    pub(crate) ignore_range: bool,
    /// Weights lie there instead.
    pub(crate) redirect: Option<String>,
    /// The etag of every file.
    pub(crate) etag: Option<String>,
    /// The etag of a file by its name and content.
    pub(crate) etags: Option<fn(&str, &[u8]) -> String>,
    /// This many answers of the second address are of the right length and wrong in their last byte.
    pub(crate) damage: u32,
    /// The commit of every revision.
    pub(crate) sha: Option<String>,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: Faults,
    requests: Vec<Request>,
    cdn: String,
}

/// The server; its threads end with the process.
pub(crate) struct Hub {
    /// Its address.
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// A Hub with the repository `org/name`.
    pub(crate) fn with(files: BTreeMap<String, Vec<u8>>) -> Self {
        let (hub, cdn) = (listener(), listener());
        let address = |l: &TcpListener| format!("http://{}", l.local_addr().unwrap());
        let (endpoint, cdn_address) = (address(&hub), address(&cdn));
        let faults = Faults::default();
        let state = State { files, faults, requests: Vec::new(), cdn: cdn_address };
        let state = Arc::new(Mutex::new(state));
        serve(hub, false, Arc::clone(&state));
        serve(cdn, true, Arc::clone(&state));
        Hub { endpoint, state }
    }

    /// A Hub with the files of a directory, except `expected.safetensors`.
    pub(crate) fn of(dir: &Path) -> Self {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name != "expected.safetensors" {
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
        Self::with(files)
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    pub(crate) fn insert(&self, name: &str, content: impl Into<Vec<u8>>) {
        self.lock().files.insert(name.to_owned(), content.into());
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().requests)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// What the Hub calls a content: no hash that could be checked, unless [`Faults::etags`] gives one.
pub(crate) fn etag_of(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn serve(listener: TcpListener, cdn: bool, state: Arc<Mutex<State>>) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            // A client that goes away is no fault of the test.
            thread::spawn(move || drop(answer(stream, cdn, &state)));
        }
    });
}

fn answer(mut stream: TcpStream, cdn: bool, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let line = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let request = Request { cdn, path, headers };
    let (head, body, whole) = reply(&mut state.lock().unwrap(), &request);
    write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {whole}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&body)
}

/// Status line and headers, the bytes sent, and how many were announced.
fn reply(state: &mut State, request: &Request) -> (String, Vec<u8>, usize) {
    state.requests.push(request.clone());
    let faults = state.faults.clone();
    let none = |head: String| (head, Vec::new(), 0);
    if let Some((status, code)) = faults.refuse {
        return none(format!("{status} No\r\nX-Error-Code: {code}"));
    }
    if request.path.starts_with("/api/models/org/name/revision/") {
        let revision = request.path.rsplit('/').next().unwrap().split('?').next().unwrap();
        let commit = match revision {
            "main" | COMMIT => COMMIT,
            "v1" | TAGGED => TAGGED,
            _ => return none("404 Not Found\r\nX-Error-Code: RevisionNotFound".into()),
        };
        let files: Vec<serde_json::Value> = state
            .files
            .iter()
            .map(|(name, bytes)| serde_json::json!({"rfilename": name, "size": bytes.len()}))
            .collect();
        let sha = faults.sha.unwrap_or_else(|| commit.into());
        let body = serde_json::json!({"sha": sha, "siblings": files}).to_string().into_bytes();
        let len = body.len();
        return ("200 OK\r\nContent-Type: application/json".into(), body, len);
    }
    if !request.cdn
        && let Some(token) = &faults.token
        && request.headers.get("authorization") != Some(&format!("Bearer {token}"))
    {
        return none("401 Unauthorized\r\nX-Error-Code: GatedRepo".into());
    }
    let found = request.path.strip_prefix("/org/name/resolve/").and_then(|p| p.split_once('/'));
    let Some((commit, bytes, name)) = found
        .and_then(|(commit, name)| Some((commit, state.files.get(name)?.clone(), name.to_owned())))
    else {
        return none("404 Not Found\r\nX-Error-Code: RepoNotFound".into());
    };
    let own = || faults.etags.map_or_else(|| etag_of(&bytes), |etag| etag(&name, &bytes));
    let etag = faults.etag.clone().unwrap_or_else(own);
    let of_hub = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}");
    if name.ends_with(".safetensors") && !request.cdn {
        let to = faults.redirect.unwrap_or_else(|| format!("{}{}", state.cdn, request.path));
        let linked = format!("X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}", bytes.len());
        return none(format!("302 Found\r\nLocation: {to}\r\n{of_hub}\r\n{linked}"));
    }
    let range = request.headers.get("range").filter(|_| !faults.ignore_range);
    let range =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let start: usize = range.unwrap_or(0);
    let status = match range {
        Some(_) => {
            let (last, len) = (bytes.len() - 1, bytes.len());
            format!("206 Partial Content\r\nContent-Range: bytes {start}-{last}/{len}")
        }
        None => "200 OK".into(),
    };
    let mut sent = bytes[start..].to_vec();
    let whole = sent.len();
    if request.cdn
        && let Some((after, times @ 1..)) = state.faults.break_after
    {
        sent.truncate(after);
        state.faults.break_after = Some((after, times - 1));
    }
    if request.cdn && state.faults.damage > 0 {
        state.faults.damage -= 1;
        sent.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    }
    (format!("{status}\r\n{of_hub}"), sent, whole)
}
