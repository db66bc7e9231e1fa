//! Where the Hub is, where its cache is, and who asks.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The Hub's address where `HF_ENDPOINT` names no other.
const ENDPOINT: &str = "https://huggingface.co";

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubProgress<'a> {
    /// The file under way.
    pub file: &'a str,
    /// Bytes of all files that are there.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// How the Hub is asked.
#[derive(Clone)]
pub struct HubOptions<'a> {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// The cache: `.../hub`.
    pub cache: PathBuf,
    /// Access token.
    pub token: Option<String>,
    /// Request nothing.
    pub offline: bool,
    /// Told of every piece that arrives.
    pub progress: &'a dyn Fn(HubProgress<'_>),
    /// Told what a person should know.
    pub note: &'a dyn Fn(&str),
}

impl<'a> HubOptions<'a> {
    /// As the environment says: `HF_ENDPOINT`; `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`,
    /// `XDG_CACHE_HOME`, `HOME`; `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH`, the file `token` in
    /// `HF_HOME`; `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`.
    pub fn from_env(
        progress: &'a dyn Fn(HubProgress<'_>),
        note: &'a dyn Fn(&str),
    ) -> HubOptions<'a> {
        let var = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self::from_vars(&var, progress, note)
    }

    fn from_vars(
        var: &dyn Fn(&str) -> Option<String>,
        progress: &'a dyn Fn(HubProgress<'_>),
        note: &'a dyn Fn(&str),
    ) -> HubOptions<'a> {
        let home = var("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let user = || var("HOME").or_else(|| var("USERPROFILE")).unwrap_or_else(|| ".".into());
            let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
            cache.unwrap_or_else(|| Path::new(&user()).join(".cache")).join("huggingface")
        });
        let cache = var("HF_HUB_CACHE").or_else(|| var("HUGGINGFACE_HUB_CACHE"));
        let token_file = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = var("HF_TOKEN")
            .or_else(|| var("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_owned());
        let set = |name: &str| {
            let on = |value: String| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase());
            var(name).is_some_and(on)
        };
        HubOptions {
            endpoint: var("HF_ENDPOINT")
                .unwrap_or_else(|| ENDPOINT.into())
                .trim_end_matches('/')
                .into(),
            cache: cache.map_or_else(|| home.join("hub"), PathBuf::from),
            token: token.filter(|token| !token.is_empty()),
            offline: set("HF_HUB_OFFLINE") || set("TRANSFORMERS_OFFLINE"),
            progress,
            note,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(vars: &[(&str, &str)]) -> HubOptions<'static> {
        let var = |name: &str| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        HubOptions::from_vars(&var, &|_| {}, &|_| {})
    }

    #[test]
    fn the_usual_variables() {
        let plain = options(&[("HOME", "/home/a")]);
        assert_eq!(plain.endpoint, ENDPOINT);
        assert_eq!(plain.cache, Path::new("/home/a/.cache/huggingface/hub"));
        assert_eq!((plain.token, plain.offline), (None, false));
        let xdg = options(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/x")]);
        assert_eq!(xdg.cache, Path::new("/x/huggingface/hub"));
        let home = options(&[("HF_HOME", "/data/hf"), ("HF_ENDPOINT", "http://mirror/")]);
        assert_eq!(home.cache, Path::new("/data/hf/hub"));
        assert_eq!(home.endpoint, "http://mirror");
        let cache = options(&[("HF_HOME", "/data/hf"), ("HF_HUB_CACHE", "/c")]);
        assert_eq!(cache.cache, Path::new("/c"));
        for (value, offline) in [("1", true), ("True", true), ("0", false), ("no", false)] {
            assert_eq!(options(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn tokens_come_from_variables_before_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "from-file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        let token = |vars: &[(&str, &str)]| options(&[vars, &[("HF_HOME", home)]].concat()).token;
        assert_eq!(token(&[]).as_deref(), Some("from-file"));
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "old")]).as_deref(), Some("old"));
        let both = [("HUGGING_FACE_HUB_TOKEN", "old"), ("HF_TOKEN", " new ")];
        assert_eq!(token(&both).as_deref(), Some("new"));
    }
}
