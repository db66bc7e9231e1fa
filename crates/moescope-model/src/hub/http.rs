//! Requests to the Hub and to where it sends us.

use std::{io::Read, time::Duration};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiRepo},
};

use super::{HubError, HubId, HubOptions};

/// Redirects followed before giving up.
const REDIRECTS: usize = 6;
/// Longest wait for a connection, for the head of an answer, and for the next bytes of its body.
const CONNECT: Duration = Duration::from_secs(15);
const HEAD: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(60);

/// Who asks, and with which token.
pub(crate) struct Client {
    api: ApiRepo,
    endpoint: String,
}

/// An answer.
pub(crate) struct Reply {
    /// The address that gave it.
    pub(crate) url: String,
    pub(crate) status: u16,
    /// Name in lower case, value.
    headers: Vec<(String, String)>,
    /// The headers of the Hub itself where it sent us elsewhere: what the content is lies there.
    hub_headers: Vec<(String, String)>,
    pub(crate) body: Box<dyn Read>,
}

impl Reply {
    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// A header of the Hub's own answer.
    pub(crate) fn hub_header(&self, name: &str) -> Option<&str> {
        find(&self.hub_headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

impl Client {
    pub(crate) fn new(id: &HubId, options: &HubOptions<'_>) -> Result<Self, HubError> {
        let endpoint = options.endpoint.clone();
        let repo = Repo::with_revision(id.repo.clone(), RepoType::Model, id.revision.clone());
        let api = ApiBuilder::from_cache(Cache::new(options.cache.clone()))
            .with_endpoint(endpoint.clone())
            .with_token(options.token.clone())
            .with_user_agent("moescope", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|e| HubError::Network { url: endpoint.clone(), reason: e.to_string() })?;
        Ok(Client { api: api.repo(repo), endpoint })
    }

    /// Address of the description of the repository at its revision.
    pub(crate) fn info_url(&self, id: &HubId) -> String {
        let revision = id.revision.replace('/', "%2F");
        format!("{}/api/models/{}/revision/{revision}?blobs=true", self.endpoint, id.repo)
    }

    /// Address of a file.
    pub(crate) fn file_url(&self, id: &HubId, commit: &str, name: &str) -> String {
        format!("{}/{}/resolve/{commit}/{name}", self.endpoint, id.repo)
    }

    /// Asks for an address, from byte `from` on where given, and follows redirects by itself: only to HTTP,
    /// never from HTTPS to plain, and the token goes to nobody but the Hub.
    pub(crate) fn get(&self, url: &str, from: Option<u64>) -> Result<Reply, HubError> {
        let mut url = url.to_owned();
        let mut hub_headers = None;
        for _ in 0..REDIRECTS {
            let trusted = origin(&url) == origin(&self.endpoint);
            let mut request = self.api.info_request().uri(&url);
            if !trusted && let Some(headers) = request.headers_mut() {
                headers.remove("Authorization");
            }
            if let Some(from) = from {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let answer = request
                .config()
                .max_redirects(0)
                .http_status_as_error(false)
                // Lengths and offsets are those of the file.
                .accept_encoding("identity")
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(HEAD))
                .timeout_per_read(Some(SILENCE))
                .build()
                .call()
                .map_err(|e| HubError::Network { url: url.clone(), reason: e.to_string() })?;
            let (head, body) = answer.into_parts();
            let headers: Vec<(String, String)> = head
                .headers
                .iter()
                .filter_map(|(name, value)| {
                    Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
                })
                .collect();
            let status = head.status.as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(Reply {
                    url,
                    status,
                    hub_headers: hub_headers.unwrap_or_else(|| headers.clone()),
                    headers,
                    body: Box::new(body.into_reader()),
                });
            }
            let Some(next) = find(&headers, "location").and_then(|to| target(&url, to)) else {
                let to = find(&headers, "location").unwrap_or("nowhere");
                return Err(HubError::Answer { url, reason: format!("it redirects to {to:?}") });
            };
            // The first redirect away is where the Hub says what the content is.
            if trusted && origin(&next) != origin(&url) {
                hub_headers.get_or_insert(headers);
            }
            url = next;
        }
        Err(HubError::Answer { url, reason: format!("more than {REDIRECTS} redirects") })
    }
}

/// Scheme and host of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Where a redirect from `url` leads; none if that is refused.
fn target(url: &str, location: &str) -> Option<String> {
    let next = match location.starts_with('/') && !location.starts_with("//") {
        true => format!("{}{location}", origin(url)),
        false => location.to_owned(),
    };
    let secure = next.starts_with("https://");
    let plain = next.starts_with("http://") && url.starts_with("http://");
    // No name and password in front of the host.
    ((secure || plain) && !origin(&next).contains('@')).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_http_and_never_lose_tls() {
        let from = "https://hub.example/a/b";
        assert_eq!(target(from, "/c?d").unwrap(), "https://hub.example/c?d");
        assert_eq!(target(from, "https://cdn.example/x").unwrap(), "https://cdn.example/x");
        let refused = [
            "http://hub.example/c",
            "file:///etc/passwd",
            "//x/y",
            "ftp://x",
            "https://u:p@x/",
            "c",
        ];
        for to in refused {
            assert_eq!(target(from, to), None, "{to}");
        }
        assert!(target("http://localhost:1/a", "http://localhost:2/b").is_some());
    }

    #[test]
    fn origins_differ_by_port_and_not_by_path() {
        assert_eq!(origin("http://a:1/b/c"), origin("http://a:1?x"));
        assert_ne!(origin("http://a:1/b"), origin("http://a:2/b"));
        assert_ne!(origin("http://a:1/b"), origin("http://a:11/b"));
    }
}
