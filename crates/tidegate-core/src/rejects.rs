//! The rejects file: every row that was not sent, with its place and the reason, as JSON lines.
