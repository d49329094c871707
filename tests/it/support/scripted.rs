//! An upstream that answers one path with bytes that a test gives it, and leaves the rest to a sample server.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with a request for its path.
#[derive(Debug, Clone)]
pub struct Script {
    /// What it writes, piece by piece, each on its own.
    pub pieces: Vec<Vec<u8>>,
    /// Whether it then closes the connection.
    pub closes: bool,
}

/// The upstream; it is closed when dropped.
pub struct Scripted {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    script: Arc<Mutex<Script>>,
    accepting: JoinHandle<()>,
}

impl Scripted {
    /// Answers `path` itself, and passes other requests on to `sample`.
    pub async fn before(sample: SocketAddr, path: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(Script { pieces: Vec::new(), closes: false }));
        let (kept, played) = (Arc::clone(&heads), Arc::clone(&script));
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (heads, script) = (Arc::clone(&kept), Arc::clone(&played));
                tokio::spawn(async move {
                    // The gate may leave at any time; that ends the connection.
                    let _ = serve(stream, sample, path, &heads, &script).await;
                });
            }
        });
        Self { address, heads, script, accepting }
    }

    /// From now on it answers so.
    pub fn play(&self, pieces: &[&[u8]], closes: bool) {
        *self.script.lock() = Script { pieces: pieces.iter().map(|piece| piece.to_vec()).collect(), closes };
    }

    /// The heads of the requests for its path, in order.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    sample: SocketAddr,
    path: &str,
    heads: &Mutex<Vec<String>>,
    script: &Mutex<Script>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        if !text.split(' ').nth(1).unwrap_or_default().starts_with(path) {
            let mut inner = TcpStream::connect(sample).await?;
            inner.write_all(&[&head[..head.len() - 2], b"connection: close\r\n\r\n"].concat()).await?;
            tokio::io::copy(&mut inner, &mut stream).await?;
            return stream.shutdown().await;
        }
        heads.lock().push(text);
        let played = script.lock().clone();
        for piece in played.pieces {
            stream.write_all(&piece).await?;
            stream.flush().await?;
            tokio::task::yield_now().await;
        }
        if played.closes {
            return stream.shutdown().await;
        }
    }
}
