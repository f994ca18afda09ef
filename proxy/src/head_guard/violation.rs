//! The rules that a message can break, and the statuses that answer it.

use super::EMPTY_LINES_MAX;
use http::StatusCode;

/// A rule that a message breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 9112, 2.2.
    #[error("more than {EMPTY_LINES_MAX} empty lines before the request line")]
    EmptyLines,
    /// RFC 9112, 2.2: neither CR nor LF stands alone.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// RFC 9112, 3.1.
    #[error("the method is no token, or not followed by one space")]
    Method,
    /// RFC 9112, 3.2.
    #[error("the target is empty, or holds a control character, a space or a #")]
    Target,
    /// RFC 9112, 3.
    #[error("the request line is too long")]
    TargetTooLong,
    /// RFC 9112, 2.3.
    #[error("the request line does not end with an HTTP version")]
    Version,
    /// RFC 9110, 15.6.6.
    #[error("the HTTP version is neither 1.0 nor 1.1")]
    VersionUnsupported,
    /// RFC 9110, 5.1.
    #[error("a field's name is no token")]
    Name,
    /// RFC 9112, 5.1.
    #[error("white space between a field's name and its colon")]
    SpaceBeforeColon,
    /// RFC 9112, 5.2; before the first field 2.2.
    #[error("a field line begins with white space")]
    Folded,
    /// RFC 9110, 5.5.
    #[error("a control character in a field's value")]
    Value,
    /// RFC 6585, 5.
    #[error("the head is too large")]
    HeadTooLarge,
    /// RFC 6585, 5.
    #[error("too many header fields")]
    TooManyFields,
    /// RFC 9110, 8.6.
    #[error("Content-Length is no number, or given twice")]
    Length,
    /// RFC 9112, 6.1 and 6.3.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// RFC 9112, 6.1 and 6.3.
    #[error("Transfer-Encoding is not chunked once, or stands in HTTP/1.0")]
    Coding,
    /// RFC 9112, 6.1.
    #[error("a transfer coding before chunked")]
    CodingUnsupported,
    /// RFC 9112, 3.2.
    #[error("no Host")]
    HostMissing,
    /// RFC 9112, 3.2.
    #[error("Host is given twice, or no host")]
    Host,
    /// RFC 9110, 10.1.1.
    #[error("an expectation other than 100-continue")]
    Expectation,
    /// RFC 9112, 7.1.
    #[error("a chunk's size is no hexadecimal number, or too large")]
    ChunkSize,
    /// RFC 9112, 7.1.1.
    #[error("a control character in a chunk's extension, or too many of them")]
    ChunkExtension,
    /// RFC 9112, 7.1.
    #[error("a chunk does not end with CR LF")]
    ChunkEnd,
    /// RFC 9110, 6.5.1.
    #[error("a field that frames or addresses a message among the trailers")]
    Trailer,
}

impl Violation {
    /// The status that answers it when it is a head's.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::CodingUnsupported => StatusCode::NOT_IMPLEMENTED,
            Self::VersionUnsupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::EmptyLines
            | Self::LineEnd
            | Self::Method
            | Self::Target
            | Self::Version
            | Self::Name
            | Self::SpaceBeforeColon
            | Self::Folded
            | Self::Value
            | Self::Length
            | Self::LengthAndCoding
            | Self::Coding
            | Self::HostMissing
            | Self::Host
            | Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkEnd
            | Self::Trailer => StatusCode::BAD_REQUEST,
        }
    }
}
