//! Connections: frames are read, worked on one after the other, and answered in the same order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tidegate_wire::frame::{LENGTH_LEN, parse_length};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{self, Answer};
use crate::shared::{BUFFER_UNIT, Shared};

/// How much a read buffer grows at a time: memory follows the bytes that come, not those announced.
const READ_STEP: usize = 1 << 20;

/// How much is read ahead while a request is being worked on, to notice that the client has left.
const READ_AHEAD: usize = 64 * 1024;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Counted from 1.
    pub(crate) number: u64,
    pub(crate) peer: SocketAddr,
    /// Where the client came in.
    pub(crate) local: SocketAddr,
}

/// Accepts connections until `stopping` says so, then ends them all.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
) {
    let accepted = AtomicU64::new(0);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            Some(_) = connections.join_next() => continue,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let Ok((stream, peer)) = stream else {
            // Out of file descriptors, say: the ones in use have to end first.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        if connections.len() >= shared.config.max_connections {
            continue;
        }
        let number = accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let counted = Counted::new(Arc::clone(&shared));
        let mut stopping = stopping.clone();
        connections.spawn(async move {
            tokio::select! {
                // How a connection ends concerns nobody but its client.
                _ = converse(stream, peer, number, &counted.shared) => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        });
    }
    connections.shutdown().await;
}

/// Counts a connection for as long as it lives.
struct Counted {
    shared: Arc<Shared>,
}

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::AcqRel);
        Self { shared }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Reads and answers requests until the client leaves or says something that cannot be understood.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    number: u64,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let connection = Connection {
        number,
        peer,
        local: stream.local_addr()?,
    };
    let (reader, mut writer) = stream.into_split();
    let mut frames = Frames {
        reader,
        buffer: BytesMut::new(),
        limit: shared.config.max_request_bytes,
    };
    while let Some(length) = frames.next_length().await? {
        let units = u32::try_from(length.div_ceil(BUFFER_UNIT)).unwrap_or(u32::MAX);
        let Ok(_room) = shared.buffers.acquire_many(units.max(1)).await else {
            return Ok(());
        };
        let frame = frames.take(length).await?;
        let late = std::sync::atomic::AtomicBool::new(false);
        let mut working = std::pin::pin!(api::answer(shared, &connection, frame, &late));
        let answer = tokio::select! {
            biased;
            answer = &mut working => answer,
            () = frames.client_left() => {
                if !late.load(Ordering::Acquire) {
                    return Ok(());
                }
                working.await
            }
        };
        match answer {
            Answer::Send(bytes) => writer.write_all(&bytes).await?,
            Answer::Silence => {}
            Answer::Disconnect => return Ok(()),
        }
    }
    Ok(())
}

/// The frames that come in.
struct Frames {
    reader: OwnedReadHalf,
    /// What has been read and not been used yet.
    buffer: BytesMut,
    limit: usize,
}

impl Frames {
    /// The length of the next frame; `None` if the client has left before it.
    async fn next_length(&mut self) -> io::Result<Option<usize>> {
        while self.buffer.len() < LENGTH_LEN {
            self.buffer.reserve(READ_AHEAD);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
        let prefix = self.buffer.split_to(LENGTH_LEN);
        let mut bytes = [0; LENGTH_LEN];
        bytes.copy_from_slice(&prefix);
        Ok(Some(parse_length(bytes, self.limit)?))
    }

    /// The next frame, of which only the length has been taken so far.
    async fn take(&mut self, length: usize) -> io::Result<Bytes> {
        while self.buffer.len() < length {
            let missing = length - self.buffer.len();
            self.buffer.reserve(missing.min(READ_STEP));
            let mut limited = (&mut self.reader).take(missing as u64);
            if limited.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Ends when the client has left. While it has not, some of its next requests may be read ahead.
    async fn client_left(&mut self) {
        while self.buffer.len() < READ_AHEAD {
            self.buffer.reserve(READ_AHEAD);
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending::<()>().await;
    }
}
