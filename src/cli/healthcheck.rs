//! `rolegate healthcheck`: asks a running rolegate whether it is ready, for containers without curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Exit;
use super::output;

/// How long a healthy process may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a running rolegate whether it is ready
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rolegate healthcheck --admin 127.0.0.1:9901\n\nExit codes: 0 ready, 1 not ready, 2 usage")]
pub(super) struct Args {
    /// The address of the admin listener
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
}

pub(super) fn run(args: &Args) -> Exit {
    match ask(args.admin) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => Exit::Good,
        Ok(answer) => {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            output::error(&format!("not ready: {}", body.trim().replace('\n', ", ")));
            Exit::Failed
        }
        Err(error) => {
            output::error(&format!("{}: {error}", args.admin));
            Exit::Failed
        }
    }
}

fn ask(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
