//! The bodies of our own answers: small ones built in, each replaceable by a file's content.

use crate::limits::RetryAfter;
use bytes::Bytes;
use http::StatusCode;

/// Why a page cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("status {status} has no page, expected one of 400, 403, 408, 429, 500, 502, 503, 504")]
pub struct PageError {
    /// The status that was named.
    pub status: u16,
}

/// A page for each status that this node answers with by itself, and one for when no shard is left.
#[derive(Debug, Clone)]
pub struct Pages {
    of_status: [(StatusCode, Bytes); 8],
    maintenance: Option<Bytes>,
    maintenance_retry_after: RetryAfter,
}

impl Default for Pages {
    fn default() -> Self {
        let page = |status: StatusCode, text: &str| {
            let reason = status.canonical_reason().unwrap_or("Error");
            let code = status.as_u16();
            let body = format!("<html><body><h1>{code} {reason}</h1>\n{text}\n</body></html>\n");
            (status, Bytes::from(body))
        };
        let of_status = [
            page(StatusCode::BAD_REQUEST, "Your browser sent an invalid request."),
            page(StatusCode::FORBIDDEN, "Request forbidden by administrative rules."),
            page(StatusCode::REQUEST_TIMEOUT, "Your browser didn't send a complete request in time."),
            page(StatusCode::TOO_MANY_REQUESTS, "You have sent too many requests in a given amount of time."),
            page(StatusCode::INTERNAL_SERVER_ERROR, "An internal error occurred."),
            page(StatusCode::BAD_GATEWAY, "The server returned an invalid or incomplete response."),
            page(StatusCode::SERVICE_UNAVAILABLE, "No server is available to handle this request."),
            page(StatusCode::GATEWAY_TIMEOUT, "The server didn't respond in time."),
        ];
        Self { of_status, maintenance: None, maintenance_retry_after: RetryAfter(30) }
    }
}

impl Pages {
    /// Replaces the page of `status` by the content of a file.
    ///
    /// # Errors
    /// [`PageError`] when this node never answers with that status.
    pub fn replace(&mut self, status: u16, body: Bytes) -> Result<(), PageError> {
        let page = self
            .of_status
            .iter_mut()
            .find(|(code, _)| code.as_u16() == status)
            .ok_or(PageError { status })?;
        page.1 = body;
        Ok(())
    }

    /// What people are shown when no shard is left (`None`: the page of 503), and after how many seconds whoever asks may come again.
    pub fn set_maintenance(&mut self, page: Option<Bytes>, retry_after_s: u64) {
        (self.maintenance, self.maintenance_retry_after) = (page, RetryAfter(retry_after_s));
    }

    pub(crate) fn maintenance(&self) -> Option<Bytes> {
        self.maintenance.clone()
    }

    pub(super) const fn maintenance_retry_after(&self) -> RetryAfter {
        self.maintenance_retry_after
    }

    /// The page of `status`; the finer ones of a head (414, 417, 431, 501, 505) share that of 400.
    pub(crate) fn body(&self, status: StatusCode) -> Bytes {
        let page = self.of_status.iter().find(|(code, _)| *code == status).unwrap_or(&self.of_status[0]);
        page.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_can_be_replaced() {
        let mut pages = Pages::default();
        pages.replace(503, Bytes::from_static(b"away")).unwrap();
        assert_eq!(pages.body(StatusCode::SERVICE_UNAVAILABLE), "away");
        assert_eq!(pages.body(StatusCode::URI_TOO_LONG), pages.body(StatusCode::BAD_REQUEST));
        let error = pages.replace(404, Bytes::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "status 404 has no page, expected one of 400, 403, 408, 429, 500, 502, 503, 504"
        );
    }
}
