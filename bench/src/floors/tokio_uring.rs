//! A byte relay on tokio-uring: what the readiest io_uring runtime costs, written as its documentation would have it.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

const BUFFER_BYTES: usize = 64 << 10;

pub(crate) fn run(listen: SocketAddr, to: SocketAddr) -> io::Result<()> {
    tokio_uring::start(async move {
        let listener = TcpListener::bind(listen)?;
        loop {
            let (client, _) = listener.accept().await?;
            tokio_uring::spawn(async move {
                // A pair that cannot be made, or breaks, costs its client and nobody else.
                let _ = pair(client, to).await;
            });
        }
    })
}

async fn pair(client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let origin = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    origin.set_nodelay(true)?;
    let (client, origin) = (Rc::new(client), Rc::new(origin));
    tokio_uring::spawn(carry(Rc::clone(&origin), Rc::clone(&client)));
    carry(client, origin).await;
    Ok(())
}

async fn carry(from: Rc<TcpStream>, to: Rc<TcpStream>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (read, filled) = from.read(buffer).await;
        let Ok(count @ 1..) = read else { break };
        let (written, slice) = to.write_all(filled.slice(..count)).await;
        if written.is_err() {
            break;
        }
        buffer = slice.into_inner();
    }
    let _ = to.shutdown(Shutdown::Write);
}
