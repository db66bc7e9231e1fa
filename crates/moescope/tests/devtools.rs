//! A Chromium driven over its DevTools protocol: real keys, and everything the console says.
//!
//! The protocol runs over a pipe (`--remote-debugging-pipe`): JSON messages that end in a zero byte, in
//! on descriptor 3 and out on 4.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    calls: u64,
    /// What the page reported since it was opened.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts `chromium`, a command without a page.
    pub(crate) fn start(chromium: &Command) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh"])
            .arg(chromium.get_program())
            .args(chromium.get_args())
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--remote-debugging-pipe", "--allow-file-access-from-files"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut browser = Self {
            child,
            input,
            output: BufReader::new(output),
            session: None,
            calls: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let id = &target["targetId"];
        let attached =
            browser.call("Target.attachToTarget", json!({"targetId": id, "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn message(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.output.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser went away");
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Calls a method and returns its result; events on the way are kept.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(message.to_string().as_bytes()).unwrap();
        self.input.write_all(&[0]).unwrap();
        self.input.flush().unwrap();
        loop {
            let mut reply = self.message();
            if reply["id"] == id {
                assert!(reply["error"].is_null(), "{method}: {reply}");
                return reply["result"].take();
            }
            self.events.push(reply);
        }
    }

    /// Opens a page of a size, light or dark, and waits until it is drawn.
    pub(crate) fn open(&mut self, page: &Path, width: u32, dark: bool) {
        self.events.clear();
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}),
        );
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}));
        let url = format!("file://{}", page.display());
        let loader = self.call("Page.navigate", json!({"url": url}))["loaderId"].take();
        // The page before may still tell that it was loaded: what counts comes after this one was begun.
        let loaded = |events: &[Value]| {
            let begun = events.iter().position(|event| {
                event["method"] == "Page.frameNavigated"
                    && event["params"]["frame"]["loaderId"] == loader
            });
            begun.is_some_and(|at| {
                events[at..].iter().any(|event| event["method"] == "Page.loadEventFired")
            })
        };
        while !loaded(&self.events) {
            let event = self.message();
            self.events.push(event);
        }
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
    }

    /// The value of a JavaScript expression; a promise is waited for.
    pub(crate) fn run(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// Presses a key as a keyboard would.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "End" => (35, ""),
            "Home" => (36, ""),
            "ArrowLeft" => (37, ""),
            "ArrowUp" => (38, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            other => (i32::from(other.as_bytes()[0].to_ascii_uppercase()), other),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Moves the mouse to a point of the window.
    pub(crate) fn point_at(&mut self, (x, y): (f64, f64)) {
        self.call("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": x, "y": y}));
    }

    /// Clicks at a point of the window.
    pub(crate) fn click(&mut self, (x, y): (f64, f64)) {
        self.point_at((x, y));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Taps a point of the window as a finger does.
    pub(crate) fn tap(&mut self, (x, y): (f64, f64)) {
        self.call("Emulation.setTouchEmulationEnabled", json!({"enabled": true}));
        for (kind, points) in [("touchStart", json!([{"x": x, "y": y}])), ("touchEnd", json!([]))] {
            let touch = json!({"type": kind, "touchPoints": points});
            self.call("Input.dispatchTouchEvent", touch);
        }
    }

    /// Middle of the element that a JavaScript expression gives, scrolled into view.
    pub(crate) fn middle(&mut self, element: &str) -> (f64, f64) {
        let at = self.run(&format!(
            "(() => {{ const e = {element}; e.scrollIntoView({{ block: 'center' }});
                       const box = e.getBoundingClientRect();
                       return [box.left + box.width / 2, box.top + box.height / 2]; }})()"
        ));
        serde_json::from_value(at).unwrap()
    }

    /// (role, name) of everything that assistive technology is told of.
    pub(crate) fn accessible(&mut self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        let text =
            |node: &Value, what: &str| node[what]["value"].as_str().unwrap_or_default().to_owned();
        let nodes = tree["nodes"].as_array().unwrap().iter();
        nodes
            .filter(|node| node["ignored"] != true)
            .map(|node| (text(node, "role"), text(node, "name")))
            .collect()
    }

    /// Seconds the page has spent in scripts, style and layout (`Performance.enable` before).
    pub(crate) fn busy(&mut self) -> f64 {
        let metrics = self.call("Performance.getMetrics", json!({}));
        let parts = ["ScriptDuration", "LayoutDuration", "RecalcStyleDuration"];
        let metrics = metrics["metrics"].as_array().unwrap();
        let of_part = metrics.iter().filter(|m| parts.iter().any(|part| m["name"] == *part));
        of_part.map(|metric| metric["value"].as_f64().unwrap()).sum()
    }

    /// Errors and warnings of the page, exceptions, and requests that left the machine or the file.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let complaint = |event: &Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded") => true,
            Some("Network.requestWillBeSent") => {
                let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
                !(url.starts_with("file:") || url.starts_with("data:"))
            }
            _ => false,
        };
        self.events.iter().filter(|event| complaint(event)).map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It is ours, and it may hang on a page that does: no way to be polite.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
