//! The one place that decides what is tried again, where, when, and until when.
//!
//! Every call of the registry's API may be repeated: registering the same schema twice gives the same id.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// The wait after every URL has failed once; doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// No wait is longer than this, unless the registry asks for one.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The first attempt gets this part of the time, so that a URL that swallows requests leaves time for others; each round doubles it.
const FIRST_SHARE: u32 = 3;

/// One attempt that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) verdict: Verdict,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may go away: try again, not before the registry's own `Retry-After`.
    Again { not_before: Option<Duration> },
    /// It is the registry's last word.
    Final,
}

/// What follows from an answer's status.
pub(crate) fn judge_status(status: u16, retry_after: Option<Duration>) -> Verdict {
    match status {
        // Too many requests: asks by itself to come back later.
        429 => Verdict::Again {
            not_before: retry_after,
        },
        // A server in trouble, starting up, without a leader, or a gateway before such a one.
        500.. => Verdict::Again {
            not_before: retry_after,
        },
        // Everything else is about the request, which would be the same next time.
        _ => Verdict::Final,
    }
}

/// What follows from a request that got no answer, and what to call it.
pub(crate) fn judge_transport(error: &ureq::Error, is_https: bool) -> (ErrorKind, Verdict) {
    let again = Verdict::Again { not_before: None };
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            (ErrorKind::Unreachable, again)
        }
        ureq::Error::Timeout(_) => (ErrorKind::Timeout, again),
        // rustls reports what is wrong with the other side's TLS as invalid data: certificates do not get better by asking again.
        ureq::Error::Io(error) if is_https && error.kind() == std::io::ErrorKind::InvalidData => {
            (ErrorKind::Tls, Verdict::Final)
        }
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => {
            (ErrorKind::Tls, Verdict::Final)
        }
        // Refused, reset, closed in the middle of an answer; a name that does not resolve now may do so when its container is up.
        ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
            (ErrorKind::Unreachable, again)
        }
        // Connected, but what came back is not HTTP, or more than a registry would say.
        ureq::Error::Protocol(_)
        | ureq::Error::LargeResponseHeader(..)
        | ureq::Error::BodyExceedsLimit(_) => (ErrorKind::NotARegistry, Verdict::Final),
        _ => (ErrorKind::Unreachable, Verdict::Final),
    }
}

/// Calls `attempt(url number, time for it)` until it succeeds, a failure is final, or `timeout` is over. Starts with URL `first` of `urls`; answers
/// the URL that succeeded along with the result.
pub(crate) fn run<T>(
    timeout: Duration,
    urls: usize,
    first: usize,
    mut attempt: impl FnMut(usize, Duration) -> Result<T, Failure>,
) -> Result<(usize, T), Error> {
    let started = Instant::now();
    let mut wait = FIRST_WAIT;
    let mut share = timeout / FIRST_SHARE;
    let mut attempts = 0;
    loop {
        let mut pause = wait;
        for url in (0..urls).map(|step| (first + step) % urls) {
            let left = timeout.saturating_sub(started.elapsed());
            attempts += 1;
            let failure = match attempt(url, share.min(left).max(Duration::from_millis(1))) {
                Ok(result) => return Ok((url, result)),
                Err(failure) => failure,
            };
            let Verdict::Again { not_before } = failure.verdict else {
                return Err(failure.error);
            };
            pause = pause.max(not_before.unwrap_or_default());
            let last_of_round = (url + 1) % urls == first % urls;
            let over = started.elapsed() + if last_of_round { pause } else { Duration::ZERO };
            if over >= timeout {
                let elapsed = started.elapsed().as_secs_f64();
                return Err(failure
                    .error
                    .note(format_args!("{attempts} attempts in {elapsed:.1} s")));
            }
        }
        std::thread::sleep(pause);
        wait = (wait * 2).min(LONGEST_WAIT);
        share = share.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again() -> Failure {
        Failure {
            error: Error::new(ErrorKind::Unreachable, "down"),
            verdict: Verdict::Again { not_before: None },
        }
    }

    #[test]
    fn every_url_is_tried_before_the_first_wait() {
        let mut tried = Vec::new();
        let result = run(Duration::from_secs(5), 3, 1, |url, _| {
            tried.push(url);
            if url == 0 { Ok(()) } else { Err(again()) }
        });
        assert_eq!(result.unwrap().0, 0);
        assert_eq!(tried, [1, 2, 0]);
    }

    #[test]
    fn a_final_failure_is_not_repeated() {
        let mut attempts = 0;
        let result: Result<(usize, ()), Error> = run(Duration::from_secs(5), 2, 0, |_, _| {
            attempts += 1;
            Err(Failure {
                error: Error::new(ErrorKind::Forbidden, "no"),
                verdict: Verdict::Final,
            })
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Forbidden);
        assert_eq!(attempts, 1);
    }

    #[test]
    fn it_ends_in_time_and_says_how_often_it_tried() {
        let timeout = Duration::from_millis(500);
        let started = Instant::now();
        let result: Result<(usize, ()), Error> = run(timeout, 1, 0, |_, _| Err(again()));
        assert!(started.elapsed() <= timeout + Duration::from_millis(200));
        let error = result.unwrap_err().to_string();
        assert!(error.contains("attempts in"), "{error}");
    }

    #[test]
    fn a_wait_beyond_the_deadline_is_not_begun() {
        let started = Instant::now();
        let result: Result<(usize, ()), Error> = run(Duration::from_secs(30), 1, 0, |_, _| {
            Err(Failure {
                error: Error::new(ErrorKind::Server, "busy"),
                verdict: judge_status(503, Some(Duration::from_secs(60))),
            })
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Server);
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn only_the_servers_troubles_are_tried_again() {
        for status in [200, 301, 400, 401, 403, 404, 405, 409, 422] {
            assert_eq!(judge_status(status, None), Verdict::Final, "{status}");
        }
        for status in [429, 500, 502, 503, 504] {
            assert_ne!(judge_status(status, None), Verdict::Final, "{status}");
        }
    }
}
