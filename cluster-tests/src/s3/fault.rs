//! Faults of the S3 endpoint.

/// Effect of a fault on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No effect.
    None,
    /// Closes the connection without processing the request.
    Down,
    /// Processes the request and responds with 500.
    ErrorAfter,
    /// Processes the request and closes the connection without a response.
    CloseAfter,
    /// Responds with 409 without processing the request.
    Conflict,
    /// Processes the request when another fault, or none, replaces this one.
    Hold,
    /// Processes the request; the response waits as with [`Hold`](Self::Hold).
    HoldAfter,
    /// Conditional puts overwrite silently.
    Unconditional,
}

/// A fault and the requests that it affects.
#[derive(Debug, Clone)]
pub struct Fault {
    mode: Mode,
    method: Option<&'static str>,
    contains: Option<String>,
    node: Option<String>,
    times: Option<u32>,
}

impl Fault {
    /// Affects every request until another fault replaces it.
    pub fn new(mode: Mode) -> Self {
        Self { mode, method: None, contains: None, node: None, times: None }
    }

    /// Affects only puts.
    #[must_use]
    pub fn on_puts(mut self) -> Self {
        self.method = Some("PUT");
        self
    }

    /// Affects only requests whose path and query contain `text`, which must not need escaping.
    #[must_use]
    pub fn on_path(mut self, text: impl Into<String>) -> Self {
        self.contains = Some(text.into());
        self
    }

    /// Affects only requests of this node.
    #[must_use]
    pub fn from_node(mut self, name: &str) -> Self {
        self.node = Some(name.to_owned());
        self
    }

    /// Affects only the next `times` requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Path and query of the control request.
    pub(super) fn path(&self) -> String {
        let mode = match self.mode {
            Mode::None => "none",
            Mode::Down => "down",
            Mode::ErrorAfter => "error_after",
            Mode::CloseAfter => "close_after",
            Mode::Conflict => "conflict",
            Mode::Hold => "hold",
            Mode::HoldAfter => "hold_after",
            Mode::Unconditional => "unconditional",
        };
        let mut path = format!("/_fault?mode={mode}");
        if let Some(method) = self.method {
            path.push_str(&format!("&method={method}"));
        }
        if let Some(text) = &self.contains {
            path.push_str(&format!("&contains={text}"));
        }
        if let Some(node) = &self.node {
            path.push_str(&format!("&key={node}"));
        }
        if let Some(times) = self.times {
            path.push_str(&format!("&times={times}"));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_path_encodes_its_conditions() {
        assert_eq!(Fault::new(Mode::Down).path(), "/_fault?mode=down");
        assert_eq!(
            Fault::new(Mode::ErrorAfter).on_puts().on_path("manifest").times(3).path(),
            "/_fault?mode=error_after&method=PUT&contains=manifest&times=3"
        );
        assert_eq!(
            Fault::new(Mode::Hold).from_node("compactor-1").path(),
            "/_fault?mode=hold&key=compactor-1"
        );
    }
}
